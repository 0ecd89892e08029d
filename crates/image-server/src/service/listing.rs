//! Reads what a List asks for: page, order, filter.
//!
//! Source: `api.md`, "List". The filter is `field = value`, `!=`, `IN (v, ...)`, `NOT IN (v, ...)`, joined by AND; a value
//! is a word or a quoted string with C escapes. Fields are id, name, family and status; an order is one of id, name,
//! createdAt with `asc` or `desc`. A page token is the place of the last image, `id:value`, so that images that come and
//! go between two pages move nothing.

mod filter;

use image_api::{
    Image, Violations,
    compute::{ListImagesRequest, ListImagesResponse},
};

use crate::{
    catalog::{Column, Direction, ListQuery},
    limits,
};

/// The page to read, and one image more, which tells whether there is a next page.
pub(super) fn plan(request: &ListImagesRequest) -> Result<ListQuery, Violations> {
    let (order, direction) = read_order(&request.order_by)
        .ok_or_else(|| Violations::one("order_by", "expected id, name or createdAt, then asc or desc"))?;
    let after = read_token(&request.page_token)?;
    let page_size = if request.page_size == 0 { limits::PAGE_SIZE } else { request.page_size };
    Ok(ListQuery {
        folder_id: request.folder_id.clone(),
        conditions: filter::parse(&request.filter)
            .map_err(|error| Violations::one("filter", error.to_string()))?,
        order,
        direction,
        after,
        limit: page_size.min(limits::PAGE_SIZE_MAX) + 1,
    })
}

/// The answer from what the plan gave.
pub(super) fn page(mut images: Vec<Image>, query: &ListQuery) -> ListImagesResponse {
    let page_size = usize::try_from(query.limit - 1).unwrap_or_default();
    let more = images.len() > page_size;
    images.truncate(page_size);
    let last = images.last().filter(|_| more);
    let next_page_token = last.map(|image| token(image, query.order)).unwrap_or_default();
    ListImagesResponse { images, next_page_token }
}

/// The token of the page after an image.
pub(super) fn token(image: &Image, order: Column) -> String {
    let value = match order {
        Column::Name => image.name.clone(),
        Column::CreatedAt => {
            let at = image.created_at.unwrap_or_default();
            (at.seconds * 1_000_000 + i64::from(at.nanos / 1000)).to_string()
        }
        _ => image.id.clone(),
    };
    format!("{}:{value}", image.id)
}

/// The place in a listing after which a token goes on; `None` for the empty one.
pub(super) fn read_token(token: &str) -> Result<Option<(String, String)>, Violations> {
    match token.split_once(':') {
        Some((id, value)) => Ok(Some((value.to_owned(), id.to_owned()))),
        None if token.is_empty() => Ok(None),
        None => Err(Violations::one("page_token", "not a token of this server")),
    }
}

fn read_order(text: &str) -> Option<(Column, Direction)> {
    let mut words = text.split_whitespace();
    let column = match words.next() {
        None => return Some((Column::Id, Direction::Ascending)),
        Some("id") => Column::Id,
        Some("name") => Column::Name,
        Some("createdAt" | "created_at") => Column::CreatedAt,
        Some(_) => return None,
    };
    let direction = match words.next() {
        None => Direction::Ascending,
        Some(word) if word.eq_ignore_ascii_case("asc") => Direction::Ascending,
        Some(word) if word.eq_ignore_ascii_case("desc") => Direction::Descending,
        Some(_) => return None,
    };
    words.next().is_none().then_some((column, direction))
}
