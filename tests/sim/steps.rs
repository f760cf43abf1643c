//! What may happen next.

use std::net::IpAddr;
use std::time::Duration;

use palisade::clock::Clock;
use palisade::endpoint::{AuditSetting, HOST_ENDPOINT};
use palisade::events::RepositoryChange;

use crate::agent::WORKERS;
use crate::world::{End, World};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl World {
    /// Something happens.
    pub(crate) fn step(&mut self) {
        match self.random.below(100) {
            0..46 => return self.work_on(),
            46..66 => {
                let source = self.random.below(self.sources.len());
                for _ in 0..=self.random.below(6) {
                    self.tell(source);
                }
            }
            66..76 => {
                let source = self.random.below(self.sources.len());
                self.sources[source].edit(&mut self.random);
            }
            76..84 => {
                let span = [10, 300, 3_000, 130_000][self.random.below(4)];
                self.clock.advance(Duration::from_millis(span));
            }
            84 => self.jump(),
            85 => self.move_host(),
            86 => {
                let source = self.random.below(self.sources.len());
                self.sources[source].be_silent(self.clock.now(), &mut self.random);
            }
            87 => {
                let source = self.random.below(self.sources.len());
                self.sources[source].list_again(&self.ledger, &mut self.random);
            }
            // Much more often than the limit makes it happen.
            88 => self.agent.workers.repository.save_snapshot(),
            89 => {
                self.agent.asked = true;
                let asked = self.agent.pipeline.regenerate(HOST_ENDPOINT);
                assert_eq!(asked, Ok(true));
            }
            90..93 => {
                let setting = *self.random.pick(&[
                    AuditSetting::Inherited,
                    AuditSetting::Enabled,
                    AuditSetting::Disabled,
                ]);
                self.set_audit(setting);
            }
            93..97 => {}
            97 => return self.end(End::Stopped),
            98 => return self.end(End::PowerLost),
            _ => return self.end(End::Killed),
        }
        self.settle();
    }

    /// Workers take turns, by their order or any other.
    fn work_on(&mut self) {
        let first = self.random.below(WORKERS);
        let stride = *self.random.pick(&[1, 1, 0, 3]);
        let lives = self.counts.lives;
        for turn in 0..1 + self.random.below(2 * WORKERS) {
            self.work((first + turn * stride) % WORKERS);
            self.settle();
            if self.counts.lives > lives {
                return;
            }
        }
    }

    /// The wall clock is set, back or forth, farther than the past is kept.
    fn jump(&mut self) {
        let now = self.clock.wall_ms();
        let span = [1, DAY_MS, 40 * DAY_MS][self.random.below(3)];
        let set = if self.random.chance(50) {
            now + span
        } else {
            now - span
        };
        self.clock.set_wall_ms(set);
    }

    /// Devices come and go: the host has other addresses.
    fn move_host(&mut self) {
        if !self.has_room() {
            return;
        }
        let all = ["10.1.0.1", "10.9.9.9", "192.0.2.5", "2001:db8::1"];
        let count = self.random.below(3);
        let first = self.random.below(all.len());
        let some = all.iter().cycle().skip(first).take(count);
        let addresses: Vec<IpAddr> = some.map(|text| text.parse().expect("an address")).collect();
        self.submit(RepositoryChange::LocalAddresses(addresses));
    }
}
