//! The bytes of one file: pages that are there once something was written to them. All of a file's pages are counted, those that hold
//! nothing too, so what is counted does not depend on where a program writes.

/// Bytes of a page.
pub(super) const PAGE_BYTES: u64 = 4096;
/// What a page costs: its bytes, and the place where it is remembered.
pub(super) const PAGE_COST: u64 = PAGE_BYTES + 64;
/// How many places for pages are taken at a time, at least.
const PLACES_AHEAD: usize = 16;

const PAGE: usize = 4096;
type Page = Box<[u8; PAGE]>;

/// What a file of so many bytes costs.
pub(super) const fn cost(size: u64) -> u64 {
    size.div_ceil(PAGE_BYTES).saturating_mul(PAGE_COST)
}

/// How large a file of this size may become when so much is left.
pub(super) const fn size_max(size: u64, left: u64) -> u64 {
    (size.div_ceil(PAGE_BYTES) + left / PAGE_COST) * PAGE_BYTES
}

/// Invariant: there are as many places as the size needs, and behind the size all bytes are zero.
#[derive(Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Page>>,
    size: u64,
}

impl Content {
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// At most `length` bytes from `offset`; fewer at the end.
    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = offset.saturating_add(length as u64).min(self.size);
        let mut bytes = Vec::with_capacity(index(end.saturating_sub(offset)));
        let mut at = offset;
        while at < end {
            let (page, from, until) = part(at, end);
            match &self.pages[page] {
                Some(page) => bytes.extend_from_slice(&page[from..until]),
                None => bytes.resize(bytes.len() + until - from, 0),
            }
            at += (until - from) as u64;
        }
        bytes
    }

    /// Writes all of `bytes` at `offset`, and makes the file longer if it has to be. Whoever calls has made room.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.size {
            self.set_size(end);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, from, until) = part(end - rest.len() as u64, end);
            let (now, later) = rest.split_at(until - from);
            self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]))[from..until].copy_from_slice(now);
            rest = later;
        }
    }

    /// Cuts it, or makes it longer by zeros.
    pub(super) fn set_size(&mut self, size: u64) {
        let places = index(size.div_ceil(PAGE_BYTES));
        if places < self.pages.len() {
            self.pages.truncate(places);
            if self.pages.capacity() > 2 * places + PLACES_AHEAD {
                self.pages.shrink_to(places);
            }
        } else if places > self.pages.capacity() {
            // A vector's own growth would double it, which is more than a page is charged for.
            self.pages.reserve_exact((places - self.pages.len()).max(self.pages.len() / 8 + PLACES_AHEAD));
        }
        self.pages.resize_with(places, || None);
        let (last, used) = (self.pages.last_mut(), index(size % PAGE_BYTES));
        if let (true, Some(Some(last))) = (size < self.size && used > 0, last) {
            last[used..].fill(0);
        }
        self.size = size;
    }
}

/// The page at `at`, and the part of it that lies before `end`.
fn part(at: u64, end: u64) -> (usize, usize, usize) {
    let begin = at - at % PAGE_BYTES;
    (index(at / PAGE_BYTES), index(at - begin), index((end - begin).min(PAGE_BYTES)))
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a bound of a scratch directory fits into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_is_zero_and_takes_no_memory() {
        let mut content = Content::default();
        content.write(3 * PAGE_BYTES - 1, b"ab");
        assert_eq!(content.size(), 3 * PAGE_BYTES + 1);
        assert_eq!(content.pages.iter().filter(|page| page.is_some()).count(), 2);
        assert_eq!(content.read(3 * PAGE_BYTES - 3, 100), b"\0\0ab");
        assert_eq!(content.read(u64::MAX, usize::MAX), b"");
        assert_eq!(content.read(0, 2), [0, 0]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 5000]);
        content.set_size(10);
        content.set_size(6000);
        assert!(content.read(0, 6000).iter().enumerate().all(|(at, byte)| *byte == if at < 10 { 7 } else { 0 }));
    }

    #[test]
    fn places_do_not_pile_up() {
        let mut content = Content::default();
        for size in (0..4000).map(|page| page * PAGE_BYTES) {
            content.set_size(size);
            assert!(content.pages.capacity() <= content.pages.len() * 9 / 8 + PLACES_AHEAD);
        }
        content.set_size(1);
        assert!(content.pages.capacity() <= 2 * PLACES_AHEAD);
    }

    #[test]
    fn the_largest_size_fits_exactly() {
        assert_eq!(cost(0), 0);
        assert_eq!(cost(PAGE_BYTES + 1), 2 * PAGE_COST);
        assert_eq!(size_max(1, PAGE_COST - 1), PAGE_BYTES);
        assert_eq!(cost(size_max(1, 10 * PAGE_COST)), 11 * PAGE_COST);
    }
}
