//! Pages of lists other than that of images: `page_size` 0 means [`limits::PAGE_SIZE`], and one item more than that is read,
//! which tells whether there is a next page.

use crate::limits;

/// Items to read for a page.
pub(super) fn limit(page_size: i64) -> i64 {
    size(page_size) + 1
}

/// Cuts what was read to the page; true if there was more.
pub(super) fn cut<T>(items: &mut Vec<T>, page_size: i64) -> bool {
    let size = usize::try_from(size(page_size)).unwrap_or_default();
    let more = items.len() > size;
    items.truncate(size);
    more
}

fn size(page_size: i64) -> i64 {
    if page_size == 0 { limits::PAGE_SIZE } else { page_size.min(limits::PAGE_SIZE_MAX) }
}
