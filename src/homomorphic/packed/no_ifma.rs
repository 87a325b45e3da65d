// SPDX-License-Identifier: MPL-2.0
//! In place of [`ifma`](super::ifma) on processors of other makes, which have none of it.

use super::lanes::Row;

/// Limbs of one factor that are taken at a time.
pub(super) const BLOCK: usize = 5;

/// There is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ifma {}

impl Ifma {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn multiply(self, _: &[Row], _: u64, _: &mut [Row], _: &[Row], _: &mut [Row]) {
        match self {}
    }

    pub(super) fn square(self, _: &[Row], _: u64, _: &mut [Row], _: &mut [Row]) {
        match self {}
    }

    pub(super) fn select(self, _: &[Row], _: &Row, _: &mut [Row]) {
        match self {}
    }

    pub(super) fn pick(self, _: &[Row], _: u64, _: &mut [Row]) {
        match self {}
    }
}
