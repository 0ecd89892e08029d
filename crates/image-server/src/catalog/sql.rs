//! Statements that are put together: text, and values behind numbered placeholders.

use sqlx::{
    Any, Arguments as _, AssertSqlSafe, Encode, Type,
    any::{AnyArguments, AnyRow},
    query::Query,
};

/// A statement in the making. Whatever comes from outside is a value, never text.
pub(super) struct Sql {
    text: String,
    values: AnyArguments,
    /// The first value that could not be taken; text and integers always can.
    failed: Option<sqlx::Error>,
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), values: AnyArguments::default(), failed: None }
    }

    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// A placeholder, and what stands for it.
    pub(super) fn push_bind<T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'static, Any> + Type<Any>,
    {
        if let Err(error) = self.values.add(value) {
            self.failed.get_or_insert(sqlx::Error::Encode(error));
        }
        self.text.push_str(&format!("${}", self.values.len()));
        self
    }

    /// `a, b, c` of values.
    pub(super) fn push_list<T>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self
    where
        T: Encode<'static, Any> + Type<Any>,
    {
        for (number, value) in values.into_iter().enumerate() {
            self.push(if number == 0 { "" } else { ", " }).push_bind(value);
        }
        self
    }

    pub(super) fn query(self) -> Result<Query<'static, Any, AnyArguments>, sqlx::Error> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(sqlx::query_with(AssertSqlSafe(self.text), self.values)),
        }
    }

    pub(super) async fn fetch_all<'e>(
        self,
        on: impl sqlx::Executor<'e, Database = Any>,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        self.query()?.fetch_all(on).await
    }

    pub(super) async fn fetch_optional<'e>(
        self,
        on: impl sqlx::Executor<'e, Database = Any>,
    ) -> Result<Option<AnyRow>, sqlx::Error> {
        self.query()?.fetch_optional(on).await
    }

    /// Gives the number of rows that changed.
    pub(super) async fn execute<'e>(
        self,
        on: impl sqlx::Executor<'e, Database = Any>,
    ) -> Result<u64, sqlx::Error> {
        Ok(self.query()?.execute(on).await?.rows_affected())
    }
}
