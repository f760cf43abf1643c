//! The policy language: from objects to rules, with every error at once.

mod error;

pub use error::FieldError;
