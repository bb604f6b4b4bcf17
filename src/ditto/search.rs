//! Search: which things match, in which order, and which page of them. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::DittoError;
use super::things::shown;
use crate::twin::Twin;
use crate::twin::fields::Fields;
use crate::twin::path::Path;
use crate::twin::rql::Filter;

/// Hits of one page of a search: by default, and at most (Ditto).
const PAGE_LEN_DEFAULT: usize = 25;
/// See [`PAGE_LEN_DEFAULT`].
pub(super) const PAGE_LEN_MAX: usize = 200;

/// What is searched for.
pub(super) struct SearchQuery {
    filters: Vec<Filter>,
    namespaces: Option<Vec<String>>,
    fields: Option<Fields>,
    /// Properties to sort by, and whether in descending order.
    sort: Vec<(Vec<String>, bool)>,
    size: usize,
    offset: usize,
}

impl Default for SearchQuery {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            namespaces: None,
            fields: None,
            sort: Vec::new(),
            size: PAGE_LEN_DEFAULT,
            offset: 0,
        }
    }
}

impl SearchQuery {
    /// Reads the parameters of a search.
    pub(super) fn parse(form: &[(String, String)]) -> Result<Self, DittoError> {
        let mut query = Self::default();
        for (key, value) in form {
            match key.as_str() {
                "filter" => {
                    query.filters.push(Filter::parse(value).map_err(DittoError::InvalidFilter)?)
                }
                "namespaces" => {
                    query.namespaces = Some(value.split(',').map(str::to_owned).collect());
                }
                "fields" => {
                    query.fields = Some(Fields::parse(value).map_err(DittoError::InvalidFields)?);
                }
                "option" => {
                    query.options(value).map_err(DittoError::InvalidSearchOption)?;
                }
                _ => {}
            }
        }
        Ok(query)
    }

    /// `sort(+a,-b),size(n),cursor(c),limit(offset,n)`
    fn options(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, after) =
                rest.split_once('(').ok_or(format!("`{rest}` is not an option."))?;
            let (arguments, after) =
                after.split_once(')').ok_or(format!("`{name}(` has no `)`."))?;
            let number = |text: &str| {
                text.trim().parse::<usize>().map_err(|_| format!("`{text}` is not a number."))
            };
            match name.trim() {
                "size" => self.size = page_len(number(arguments)?)?,
                "limit" => {
                    let (offset, size) =
                        arguments.split_once(',').ok_or("limit takes an offset and a count.")?;
                    self.offset = number(offset)?;
                    self.size = page_len(number(size)?)?;
                }
                "cursor" => {
                    let offset = arguments.strip_prefix("at-").and_then(|text| text.parse().ok());
                    self.offset = offset.ok_or(format!("`{arguments}` is not a cursor."))?;
                }
                "sort" => {
                    for key in arguments.split(',') {
                        let descending = key.starts_with('-');
                        let path = key.trim_start_matches(['+', '-', ' ', '/']);
                        if path.is_empty() {
                            return Err("sort names an empty property.".to_owned());
                        }
                        self.sort.push((path.split('/').map(str::to_owned).collect(), descending));
                    }
                }
                other => {
                    return Err(format!(
                        "`{other}` is not an option; sort, size, cursor and limit are."
                    ));
                }
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Ok(())
    }

    fn matches(&self, twin: &Twin) -> bool {
        let named = |all: &Vec<String>| all.iter().any(|name| name == twin.id.namespace());
        self.namespaces.as_ref().is_none_or(named)
            && self.filters.iter().all(|filter| filter.matches(twin))
    }

    /// How many of the twins match.
    pub(super) fn count(&self, twins: &[Arc<Twin>]) -> usize {
        twins.iter().filter(|twin| self.matches(twin)).count()
    }

    /// The page of the twins that match.
    pub(super) fn page(&self, twins: Vec<Arc<Twin>>) -> Value {
        let mut found: Vec<(Vec<Value>, Arc<Twin>)> = twins
            .into_iter()
            .filter(|twin| self.matches(twin))
            .map(|twin| (self.sort.iter().map(|(key, _)| sort_key(&twin, key)).collect(), twin))
            .collect();
        found.sort_by(|(a, twin_a), (b, twin_b)| {
            let each = a.iter().zip(b).zip(&self.sort).map(|((a, b), (_, descending))| {
                let order = compare(a, b);
                if *descending { order.reverse() } else { order }
            });
            each.fold(Ordering::Equal, Ordering::then).then_with(|| twin_a.id.cmp(&twin_b.id))
        });
        let end = self.offset.saturating_add(self.size);
        let more = found.len() > end;
        let page = found.into_iter().skip(self.offset).take(self.size);
        let items: Vec<Value> = page.map(|(_, twin)| shown(&twin, self.fields.as_ref())).collect();
        let mut body = json!({"items": items});
        if more && let Some(map) = body.as_object_mut() {
            map.insert("cursor".to_owned(), format!("at-{end}").into());
            map.insert("nextPageOffset".to_owned(), end.into());
        }
        body
    }
}

fn page_len(size: usize) -> Result<usize, String> {
    if size > PAGE_LEN_MAX {
        return Err(format!("A page has at most {PAGE_LEN_MAX} things."));
    }
    Ok(size)
}

fn sort_key(twin: &Twin, key: &[String]) -> Value {
    match key {
        [only] => match only.as_str() {
            "thingId" => twin.id.as_str().into(),
            "_revision" => twin.revision.into(),
            "_created" => twin.created_us.into(),
            "_modified" => twin.modified_us.into(),
            _ => twin.to_json().get(only).cloned().unwrap_or_default(),
        },
        key => Path::from_segments(key.to_vec())
            .ok()
            .and_then(|path| twin.get(&path))
            .unwrap_or_default(),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        _ => 4,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0))
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Change, ThingId, apply, decide};

    #[test]
    fn options_are_read_or_refused() {
        let mut query = SearchQuery::default();
        query.options("sort(+thingId,-attributes/a),size(5),cursor(at-10)").unwrap();
        assert_eq!((query.size, query.offset, query.sort.len()), (5, 10, 2));
        for text in ["size(201)", "size(x)", "page(1)", "size(1", "cursor(x)", "limit(1)", "sort()"]
        {
            assert!(query.options(text).is_err(), "{text}");
        }
    }

    fn twins() -> Vec<Arc<Twin>> {
        let twin = |name: &str, thing: Value| {
            let id = ThingId::parse(&format!("lab:{name}")).unwrap();
            let event = decide(&id, None, Change::Modify(Path::Thing, thing)).unwrap();
            Arc::new(apply(&id, None, &event, 0).unwrap())
        };
        vec![
            twin("b", json!({"attributes": {"floor": 2}})),
            twin("a", json!({"attributes": {"floor": 2}})),
            twin("c", json!({"attributes": {"floor": 10}})),
            twin("d", json!({})),
        ]
    }

    fn page(options: &[(&str, &str)]) -> (Vec<String>, Value) {
        let form: Vec<_> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let body = SearchQuery::parse(&form).unwrap().page(twins());
        let items = body["items"].as_array().unwrap();
        let name = |item: &Value| item["thingId"].as_str().unwrap()[4..].to_owned();
        (items.iter().map(name).collect(), body["cursor"].clone())
    }

    #[test]
    fn hits_are_sorted_as_asked_and_equal_ones_by_id() {
        assert_eq!(page(&[]).0, ["a", "b", "c", "d"]);
        assert_eq!(page(&[("option", "sort(+attributes/floor)")]).0, ["d", "a", "b", "c"]);
        assert_eq!(page(&[("option", "sort(-attributes/floor)")]).0, ["c", "a", "b", "d"]);
        assert_eq!(page(&[("option", "sort(-thingId)")]).0, ["d", "c", "b", "a"]);
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_overlap() {
        let (first, cursor) = page(&[("option", "size(3)")]);
        assert_eq!((first.len(), &cursor), (3, &json!("at-3")));
        assert_eq!(
            page(&[("option", "size(3),cursor(at-3)")]),
            (vec!["d".to_owned()], json!(null))
        );
        assert_eq!(page(&[("option", "limit(1,2)")]).0, ["b", "c"]);
    }

    #[test]
    fn filters_and_namespaces_leave_out_what_does_not_match() {
        assert_eq!(page(&[("filter", "gt(attributes/floor,2)")]).0, ["c"]);
        assert!(page(&[("namespaces", "farm,city")]).0.is_empty());
        let form = [("filter".to_owned(), "exists(attributes/floor)".to_owned())];
        assert_eq!(SearchQuery::parse(&form).unwrap().count(&twins()), 3);
        for (key, value) in [("filter", "eq("), ("fields", "none"), ("option", "page(1)")] {
            assert!(SearchQuery::parse(&[(key.to_owned(), value.to_owned())]).is_err(), "{key}");
        }
    }
}
