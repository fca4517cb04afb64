//! Claims of marks in the file that all workers share: `edge/verification/replay_windows.py`, which makes that file ready.
//!
//! What is not plain is left to Python: a lock that stays held, a disk that fails, a file that was cut short. So is how long to wait, what
//! to log and when to open the file anew. Both ways take the same lock and write the same bytes, so that workers that have
//! this core and workers that do not, of this release or the one before, share one window.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;

const WAYS: usize = 8;
const SLOTS_AT: u64 = 4096;
const TAG_BYTES: usize = 8;
const EVENT_AT: usize = TAG_BYTES;
const TIME_AT: usize = EVENT_AT + 8;
const ACTION_AT: usize = TIME_AT + 4;
const CHECKSUM_AT: usize = ACTION_AT + 1;
const SLOT_BYTES: usize = CHECKSUM_AT + 3;
const SET_BYTES: usize = WAYS * SLOT_BYTES;

/// A claim lasts for a microsecond, so another worker's is over before its core is given to anybody else.
const LOCK_ATTEMPTS: usize = 20;

type Slot = [u8; SLOT_BYTES];

pub struct ReplayWindow {
    file: File,
    sets: NonZeroU64,
}

/// An event and its action's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    pub event: [u8; 8],
    pub action: u8,
}

#[derive(Debug, PartialEq)]
pub enum Claim {
    First,
    Known(Mark),
}

impl ReplayWindow {
    /// `sets` must be as many as the file's header says.
    pub fn open(path: &Path, sets: NonZeroU64) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).write(true).open(path)?, sets })
    }

    /// Remember the mark where its digest is new, else say what the digest stands for. None where Python has to.
    ///
    /// `now` is in seconds since the epoch.
    pub fn claim(&self, digest: &[u8; 16], mark: Mark, now: i64) -> Option<Claim> {
        let now = now.try_into().ok()?;
        // Between looking and writing no other worker may claim the same digest.
        if !(0..LOCK_ATTEMPTS).any(|_| self.file.try_lock().is_ok()) {
            return None;
        }
        let claim = self.claim_locked(digest, mark, now);
        self.file.unlock().ok()?;
        claim
    }

    fn claim_locked(&self, digest: &[u8; 16], mark: Mark, now: u32) -> Option<Claim> {
        let (tag, place) = digest.split_first_chunk::<TAG_BYTES>()?;
        let at = SLOTS_AT + u64::from_le_bytes(place.try_into().ok()?) % self.sets * SET_BYTES as u64;
        let mut slots = [0; SET_BYTES];
        if self.file.read_at(&mut slots, at).ok()? < SET_BYTES {
            return None;
        }
        let (slots, _) = slots.as_chunks::<SLOT_BYTES>();
        if let Some(slot) = slots.iter().find(|slot| slot[..TAG_BYTES] == *tag && is_whole(slot)) {
            let event = *slot[EVENT_AT..].first_chunk()?;
            return Some(Claim::Known(Mark { event, action: slot[ACTION_AT] }));
        }
        let at = at + (way_to_use(slots) * SLOT_BYTES) as u64;
        let written = self.file.write_at(&packed(*tag, mark, now), at).ok()?;
        (written == SLOT_BYTES).then_some(Claim::First)
    }
}

/// The slot that makes room: the oldest.
fn way_to_use(slots: &[Slot]) -> usize {
    let written_at = |way: &usize| u32::from_le_bytes(slots[*way][TIME_AT..ACTION_AT].try_into().unwrap_or_default());
    let oldest = (0..WAYS).min_by_key(written_at).unwrap_or_default();
    // Of equal ones the first, which `max_by_key` would not give.
    let latest = (0..WAYS).rev().max_by_key(written_at).unwrap_or_default();
    // One that is not whole may say any time, also one that never comes.
    if is_whole(&slots[latest]) { oldest } else { latest }
}

fn packed(tag: [u8; TAG_BYTES], mark: Mark, now: u32) -> Slot {
    let mut slot = [0; SLOT_BYTES];
    slot[..EVENT_AT].copy_from_slice(&tag);
    slot[EVENT_AT..TIME_AT].copy_from_slice(&mark.event);
    slot[TIME_AT..ACTION_AT].copy_from_slice(&now.to_le_bytes());
    slot[ACTION_AT] = mark.action;
    let checksum = checksum(&slot);
    slot[CHECKSUM_AT..].copy_from_slice(&checksum);
    slot
}

fn is_whole(slot: &Slot) -> bool {
    slot[CHECKSUM_AT..] == checksum(slot)
}

fn checksum(slot: &Slot) -> [u8; 3] {
    let [first, second, third, _] = crc32(&slot[..CHECKSUM_AT]).to_le_bytes();
    [first, second, third]
}

/// As zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ CRC32[((crc ^ u32::from(*byte)) & 0xFF) as usize])
}

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::env::temp_dir;
    use std::fs::remove_file;
    use std::path::PathBuf;
    use std::process::id;

    use super::*;

    const SETS: NonZeroU64 = NonZeroU64::new(2).unwrap();
    const EVENT: Mark = Mark { event: *b"an event", action: 2 };
    const ANOTHER: Mark = Mark { event: *b"another.", action: 3 };

    struct Ready(PathBuf);

    impl Ready {
        fn new(name: &str) -> Self {
            let path = temp_dir().join(format!("taskbridge-{name}-{}", id()));
            File::create(&path).unwrap().set_len(SLOTS_AT + SETS.get() * SET_BYTES as u64).unwrap();
            Self(path)
        }

        fn window(&self) -> ReplayWindow {
            ReplayWindow::open(&self.0, SETS).unwrap()
        }

        fn file(&self) -> File {
            OpenOptions::new().read(true).write(true).open(&self.0).unwrap()
        }
    }

    impl Drop for Ready {
        fn drop(&mut self) {
            remove_file(&self.0).unwrap();
        }
    }

    /// In the set that it says.
    fn digest(number: u8, set: u64) -> [u8; 16] {
        let mut digest = [number; 16];
        digest[TAG_BYTES..].copy_from_slice(&set.to_le_bytes());
        digest
    }

    #[test]
    fn checksums_are_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_digest_stands_for_the_event_that_came_first_whoever_asks() {
        let ready = Ready::new("first");
        let [one, other] = [ready.window(), ready.window()];
        for set in 0..SETS.get() {
            assert_eq!(one.claim(&digest(1, set), EVENT, 5), Some(Claim::First));
            assert_eq!(other.claim(&digest(1, set), ANOTHER, 6), Some(Claim::Known(EVENT)));
            assert_eq!(other.claim(&digest(2, set), ANOTHER, 6), Some(Claim::First));
            assert_eq!(one.claim(&digest(2, set), EVENT, 6), Some(Claim::Known(ANOTHER)));
        }
    }

    #[test]
    fn a_full_set_forgets_its_oldest_and_no_other_set_does() {
        let ready = Ready::new("full");
        let window = ready.window();
        assert_eq!(window.claim(&digest(99, 1), EVENT, 0), Some(Claim::First));
        for number in 1..=9 {
            assert_eq!(window.claim(&digest(number, 0), EVENT, 10 + i64::from(number)), Some(Claim::First));
        }
        for number in 2..=9 {
            assert_eq!(window.claim(&digest(number, 0), ANOTHER, 100), Some(Claim::Known(EVENT)), "{number}");
        }
        assert_eq!(window.claim(&digest(99, 1), ANOTHER, 100), Some(Claim::Known(EVENT)));
        assert_eq!(window.claim(&digest(1, 0), ANOTHER, 100), Some(Claim::First));
    }

    #[test]
    fn what_was_written_halfway_is_unknown_and_makes_room_first() {
        let ready = Ready::new("halfway");
        let window = ready.window();
        for number in 1..=8 {
            window.claim(&digest(number, 0), EVENT, 10).unwrap();
        }
        ready.file().write_at(&[0xFF; 4], SLOTS_AT + (3 * SLOT_BYTES + TIME_AT) as u64).unwrap();
        assert_eq!(window.claim(&digest(4, 0), ANOTHER, 11), Some(Claim::First));
        for number in [1, 2, 3, 5, 6, 7, 8] {
            assert_eq!(window.claim(&digest(number, 0), ANOTHER, 100), Some(Claim::Known(EVENT)), "{number}");
        }
    }

    #[test]
    fn a_lock_that_another_holds_is_left_to_python_and_none_is_kept() {
        let ready = Ready::new("lock");
        let (window, other) = (ready.window(), ready.file());
        other.lock().unwrap();
        assert_eq!(window.claim(&digest(1, 0), EVENT, 5), None);
        other.unlock().unwrap();
        assert_eq!(window.claim(&digest(1, 0), EVENT, 5), Some(Claim::First));
        assert!(other.try_lock().is_ok());
    }

    #[test]
    fn a_file_that_was_cut_short_is_left_to_python_and_no_lock_is_kept() {
        let ready = Ready::new("short");
        let (window, other) = (ready.window(), ready.file());
        other.set_len(SLOTS_AT + SET_BYTES as u64 - 1).unwrap();
        assert_eq!(window.claim(&digest(1, 0), EVENT, 5), None);
        assert!(other.try_lock().is_ok());
    }
}
