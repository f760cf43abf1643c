//! Reads, strips and compares eBPF object files.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionFlags};

/// Removes DWARF (it holds what differs from machine to machine); BTF stays.
pub(crate) fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(bytes)?;
    let debug = |name: &[u8]| {
        [&b".debug_"[..], b".rel.debug_"]
            .iter()
            .any(|p| name.starts_with(p))
    };
    for section in &mut builder.sections {
        if debug(&section.name) {
            section.delete = true;
        }
    }
    // LLVM keeps section names and symbol names in one table; the writer wants two.
    if !builder
        .sections
        .iter()
        .any(|section| &*section.name == b".shstrtab")
    {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = object::elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = object::build::elf::SectionData::SectionString;
    }
    builder.delete_orphans();
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// What must be equal in two builds of the same sources: by section, its bytes
/// and its relocations as text; and the symbols of programs and maps.
pub(crate) fn essence(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = object::File::parse(bytes)?;
    let mut parts = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?.to_owned();
        let SectionFlags::Elf { sh_flags } = section.flags() else {
            bail!("not an ELF object");
        };
        let code = sh_flags & u64::from(object::elf::SHF_EXECINSTR) != 0;
        let data = ["maps", ".maps", "license"].contains(&name.as_str())
            || [".rodata", ".data", ".bss"]
                .iter()
                .any(|p| name.starts_with(p));
        // BTF defines the maps of `.maps` and types the programs.
        if code || data || name == ".BTF" {
            parts.insert(name.clone(), section.data()?.to_vec());
        }
        for (offset, relocation) in section.relocations() {
            if !(code || data) {
                continue;
            }
            let RelocationTarget::Symbol(index) = relocation.target() else {
                bail!("{name}+{offset:#x}: a relocation against something else than a symbol");
            };
            let target = file.symbol_by_index(index).context("relocation target")?;
            let text = format!(
                "{}+{:#x} {:?}",
                target.name()?,
                target.address(),
                relocation.flags()
            );
            parts.insert(format!("{name} relocation {offset:#x}"), text.into_bytes());
        }
    }
    for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
        let text = format!(
            "{:#x} {} {:?}",
            symbol.address(),
            symbol.size(),
            symbol.kind()
        );
        parts.insert(format!("symbol {}", symbol.name()?), text.into_bytes());
    }
    Ok(parts)
}

/// Names of the parts in which two objects differ.
pub(crate) fn differences(left: &[u8], right: &[u8]) -> Result<Vec<String>> {
    let (left, right) = (essence(left)?, essence(right)?);
    let names = left.keys().chain(right.keys());
    let mut names: Vec<String> = names
        .filter(|name| left.get(*name) != right.get(*name))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Vec<u8> {
        let path = crate::command::root().join(crate::stamp::OBJECT);
        std::fs::read(path).expect("the committed object")
    }

    #[test]
    fn one_changed_instruction_is_a_difference() {
        let object = committed();
        assert!(differences(&object, &object).expect("parses").is_empty());
        let file = object::File::parse(object.as_slice()).expect("parses");
        let code = file
            .sections()
            .find(|section| {
                matches!(section.flags(), SectionFlags::Elf { sh_flags }
                    if sh_flags & u64::from(object::elf::SHF_EXECINSTR) != 0)
                    && section.size() > 0
            })
            .expect("a program");
        let (start, _) = code.file_range().expect("bytes in the file");
        let mut changed = object.clone();
        changed[usize::try_from(start).expect("a small file") + 1] ^= 1;
        let found = differences(&object, &changed).expect("parses");
        assert_eq!(found, [code.name().expect("named")]);
    }

    #[test]
    fn stripping_keeps_what_is_compared() {
        let object = committed();
        let stripped = strip(&object).expect("strips");
        assert!(differences(&object, &stripped).expect("parses").is_empty());
        let names = String::from_utf8_lossy(&stripped).into_owned();
        assert!(!names.contains(".debug_"), "DWARF is left");
        assert!(names.contains(".BTF"), "BTF is gone");
    }
}
