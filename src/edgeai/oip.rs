//! The Open Inference Protocol, version 2, as JSON: tensors in, tensors out (pure).
//!
//! Server side: [`rows_of`] turns a request's tensors into rows for a model, [`answer`] turns
//! predictions into tensors. Client side: [`Layout`] says how a served model wants its inputs,
//! [`request`] writes them, [`read_reply`] makes sense of what comes back from our own models and
//! from those of KServe, MLServer and Triton.
//!
//! Source: the Open Inference Protocol (kserve/open-inference-protocol, REST), the successor of
//! KServe's V2 predict protocol.
//!
//! Not here: HTTP (`http`), binary tensors (an extension; refused), gRPC.

use std::fmt::{self, Write as _};

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{Meta, Model, PredictError, Prediction};

/// Name of the one input tensor `[rows, inputs]` that our models announce.
pub const INPUT: &str = "input";

/// Most rows in one request. Why: with [`PROBABILITIES_MAX`] it bounds the work and the answer
/// that one request can cause. More is refused with 400.
pub const ROWS_MAX: usize = 4096;

/// Most probabilities (rows × labels) in one answer; about 1 MiB of JSON. More is refused.
pub const PROBABILITIES_MAX: usize = 65_536;

/// Numbers or texts, however deeply the arrays that hold them are nested.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Elements {
    /// Numbers; `null` is NaN, true is 1, false is 0.
    pub(super) numbers: Vec<f64>,
    pub(super) texts: Vec<String>,
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fill<'a>(&'a mut Elements);

        impl<'de> de::DeserializeSeed<'de> for Fill<'_> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
                d.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for Fill<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers or strings in arrays")
            }

            fn visit_f64<E>(self, v: f64) -> Result<(), E> {
                self.0.numbers.push(v);
                Ok(())
            }

            fn visit_i64<E>(self, v: i64) -> Result<(), E> {
                self.0.numbers.push(v as f64);
                Ok(())
            }

            fn visit_u64<E>(self, v: u64) -> Result<(), E> {
                self.0.numbers.push(v as f64);
                Ok(())
            }

            fn visit_bool<E>(self, v: bool) -> Result<(), E> {
                self.0.numbers.push(f64::from(u8::from(v)));
                Ok(())
            }

            fn visit_unit<E>(self) -> Result<(), E> {
                self.0.numbers.push(f64::NAN);
                Ok(())
            }

            fn visit_str<E>(self, v: &str) -> Result<(), E> {
                self.0.texts.push(v.to_owned());
                Ok(())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
                while seq.next_element_seed(Fill(&mut *self.0))?.is_some() {}
                Ok(())
            }
        }

        let mut elements = Self::default();
        deserializer.deserialize_any(Fill(&mut elements))?;
        Ok(elements)
    }
}

/// A tensor as it is received.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    #[serde(default)]
    pub(super) shape: Vec<i64>,
    #[serde(default)]
    pub(super) datatype: String,
    #[serde(default)]
    pub(super) data: Elements,
}

/// The body of an inference request.
#[derive(Debug, Deserialize)]
pub(super) struct InferRequest {
    #[serde(default)]
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Tensor>,
    #[serde(default)]
    pub(super) outputs: Vec<RequestedOutput>,
}

/// An output that the request names.
#[derive(Debug, Deserialize)]
pub(super) struct RequestedOutput {
    pub(super) name: String,
}

/// The body of an answer, of an error, or of both kinds of model description: what is read of it.
#[derive(Debug, Deserialize)]
pub(super) struct InferReply {
    #[serde(default)]
    pub(super) model_name: String,
    #[serde(default)]
    pub(super) model_version: Option<String>,
    pub(super) outputs: Vec<Tensor>,
}

/// Rows of a request, end to end, for a model with these inputs.
///
/// Taken are one tensor `[rows, inputs]` (or `[inputs]`, one row) of any name, or a tensor
/// `[rows]` (or `[rows, 1]`) for each input, by name.
///
/// # Errors
/// A sentence for the caller, whose fault it is.
pub(super) fn rows_of(request: &InferRequest, meta: &Meta) -> Result<Vec<f32>, String> {
    const NUMERIC: [&str; 10] =
        ["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"];
    let k = meta.inputs.len();
    for t in &request.inputs {
        if !NUMERIC.contains(&t.datatype.as_str()) {
            return Err(format!(
                "input `{}` has datatype `{}`; FP32, FP64 and whole numbers are taken",
                t.name, t.datatype
            ));
        }
        let elements = t.shape.iter().try_fold(1_i64, |product, &n| product.checked_mul(n));
        if t.shape.iter().any(|&n| n < 1)
            || !t.data.texts.is_empty()
            || elements.and_then(|n| usize::try_from(n).ok()) != Some(t.data.numbers.len())
        {
            return Err(format!(
                "input `{}` has shape {:?} and {} numbers",
                t.name,
                t.shape,
                t.data.numbers.len()
            ));
        }
    }
    let rows: Vec<f32> = match &request.inputs[..] {
        [t] if matches!(t.shape[..], [_, width] if width as usize == k)
            || matches!(t.shape[..], [width] if width as usize == k && k > 1) =>
        {
            t.data.numbers.iter().map(|&v| v as f32).collect()
        }
        tensors => {
            let by_name: Vec<&Tensor> = meta
                .inputs
                .iter()
                .filter_map(|name| tensors.iter().find(|t| t.name == *name))
                .collect();
            let count = by_name.first().map_or(0, |t| t.data.numbers.len());
            let column =
                |t: &Tensor| matches!(t.shape[..], [_] | [_, 1]) && t.data.numbers.len() == count;
            if by_name.len() != k || tensors.len() != k || !by_name.iter().all(|t| column(t)) {
                return Err(format!(
                    "the model takes one tensor of shape [rows, {k}], or a tensor of shape [rows] \
                     for each of {}",
                    meta.inputs.join(", ")
                ));
            }
            (0..count).flat_map(|r| by_name.iter().map(move |t| t.data.numbers[r] as f32)).collect()
        }
    };
    let n = rows.len() / k;
    if n > ROWS_MAX || n * meta.labels.len() > PROBABILITIES_MAX {
        return Err(format!(
            "{n} rows are too many; at most {} at a time",
            ROWS_MAX.min(PROBABILITIES_MAX / meta.labels.len())
        ));
    }
    if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
        return Err(format!("row {}: input `{}` has no value", at / k, meta.inputs[at % k]));
    }
    Ok(rows)
}

/// A tensor as it is sent.
#[derive(Debug, Serialize)]
pub(super) struct TensorOut {
    name: &'static str,
    shape: Vec<usize>,
    datatype: &'static str,
    data: Data,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data {
    Numbers(Vec<f32>),
    Texts(Vec<String>),
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub(super) struct InferAnswer {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<TensorOut>,
}

/// Our outputs, with what their shape is beside the rows.
const OUTPUTS: [(&str, &str); 3] =
    [("label", "BYTES"), ("score", "FP32"), ("probabilities", "FP32")];

/// Judges `rows` and puts the verdicts into tensors: those asked for, all if none are.
///
/// # Errors
/// A sentence: the caller's fault (an unknown output), except for [`PredictError::Overflow`].
pub(super) fn answer(
    name: &str,
    model: &Model,
    rows: &[f32],
    request: &InferRequest,
) -> Result<InferAnswer, String> {
    let wanted =
        |name: &str| request.outputs.is_empty() || request.outputs.iter().any(|o| o.name == name);
    if let Some(odd) =
        request.outputs.iter().find(|o| !OUTPUTS.iter().any(|(name, _)| *name == o.name))
    {
        return Err(format!(
            "the model has no output `{}`; it has label, score and probabilities",
            odd.name
        ));
    }
    let k = model.meta().inputs.len();
    let n = rows.len() / k;
    let labels = model.meta().labels.len();
    let (mut names, mut scores, mut probabilities) =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n * labels));
    let mut out = Prediction::default();
    for row in rows.chunks_exact(k) {
        model.predict(row, &mut out).map_err(|e: PredictError| e.to_string())?;
        names.push(model.label(out.label).to_owned());
        scores.push(out.score);
        probabilities.extend_from_slice(&out.probabilities);
    }
    let parts = [
        (vec![n], Data::Texts(names)),
        (vec![n], Data::Numbers(scores)),
        (vec![n, labels], Data::Numbers(probabilities)),
    ];
    let outputs = OUTPUTS
        .into_iter()
        .zip(parts)
        .filter(|((name, _), _)| wanted(name))
        .map(|((name, datatype), (shape, data))| TensorOut { name, shape, datatype, data })
        .collect();
    Ok(InferAnswer {
        model_name: name.to_owned(),
        model_version: model.version().to_owned(),
        id: request.id.clone(),
        outputs,
    })
}

/// A model's description, as `GET /v2/models/{name}` answers.
pub(super) fn metadata(name: &str, model: &Model) -> serde_json::Value {
    let meta = model.meta();
    let outputs: Vec<_> = OUTPUTS
        .iter()
        .map(|(name, datatype)| {
            let shape: &[i64] =
                if *name == "probabilities" { &[-1, meta.labels.len() as i64] } else { &[-1] };
            serde_json::json!({"name": name, "datatype": datatype, "shape": shape})
        })
        .collect();
    serde_json::json!({
        "name": name,
        "versions": [model.version()],
        "platform": format!("edgetwin_{}", meta.classifier),
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, meta.inputs.len()]}],
        "outputs": outputs,
        "parameters": {"inputs": meta.inputs, "labels": meta.labels},
    })
}

/// How a served model wants its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// One tensor `[1, inputs]` of this name and datatype.
    One { name: String, datatype: String },
    /// A tensor `[1]` or `[1, 1]` for each input, in order: name, datatype, whether `[1, 1]`.
    Each(Vec<(String, String, bool)>),
}

impl Default for Layout {
    fn default() -> Self {
        Self::One { name: INPUT.to_owned(), datatype: "FP32".to_owned() }
    }
}

impl Layout {
    /// From a model's description, for rows of `inputs` values; the default where it does not say.
    pub(super) fn of(metadata: &[u8], inputs: usize) -> Self {
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            inputs: Vec<Tensor>,
        }
        let Ok(Metadata { inputs: tensors }) = serde_json::from_slice(metadata) else {
            return Self::default();
        };
        let datatype = |t: &Tensor| {
            if t.datatype.is_empty() { "FP32".to_owned() } else { t.datatype.clone() }
        };
        match &tensors[..] {
            [t] => Self::One { name: t.name.clone(), datatype: datatype(t) },
            _ if tensors.len() == inputs => Self::Each(
                tensors.iter().map(|t| (t.name.clone(), datatype(t), t.shape.len() == 2)).collect(),
            ),
            _ => Self::default(),
        }
    }
}

/// The body of a request for one row; `None` if a value is not finite or the layout does not fit.
pub(super) fn request(layout: &Layout, row: &[f32]) -> Option<String> {
    let mut out = String::with_capacity(96 + 12 * row.len());
    let number = |out: &mut String, v: f32, datatype: &str| {
        if !v.is_finite() {
            return None;
        }
        // Whole-number tensors take whole numbers only.
        if datatype.starts_with("FP") {
            write!(out, "{v:?}").ok()
        } else {
            write!(out, "{}", v.round() as i64).ok()
        }
    };
    out.push_str("{\"inputs\":[");
    let tensor = |out: &mut String, name: &str, shape: &str, datatype: &str| {
        let name = serde_json::to_string(name).ok()?;
        let datatype = serde_json::to_string(datatype).ok()?;
        write!(out, "{{\"name\":{name},\"shape\":{shape},\"datatype\":{datatype},\"data\":[").ok()
    };
    match layout {
        Layout::One { name, datatype } => {
            tensor(&mut out, name, &format!("[1,{}]", row.len()), datatype)?;
            for (i, &v) in row.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                number(&mut out, v, datatype)?;
            }
            out.push_str("]}");
        }
        Layout::Each(tensors) => {
            if tensors.len() != row.len() {
                return None;
            }
            for (i, ((name, datatype, wide), &v)) in tensors.iter().zip(row).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                tensor(&mut out, name, if *wide { "[1,1]" } else { "[1]" }, datatype)?;
                number(&mut out, v, datatype)?;
                out.push_str("]}");
            }
        }
    }
    out.push_str("]}");
    Some(out)
}

/// What a service says of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceReply {
    /// The label, as the service names it; a number as text where it has no names.
    pub label: String,
    /// Probability of the label where the service gives one, else the number that it gives;
    /// 1 for a bare label.
    pub score: f32,
    /// Probabilities of all labels, in the service's order; empty where it gives none.
    pub probabilities: Vec<f32>,
    /// Name of the model that answered.
    pub model: String,
    /// Its version; empty where the service does not say.
    pub version: String,
}

/// Reads the answer for one row.
///
/// Understood, by content rather than by name where names differ: our `label`, `score` and
/// `probabilities`; a label (text or whole number) with or without class probabilities (MLServer's
/// `predict` and `predict_proba`; `label`, `output_label`, `probabilities`,
/// `output_probability` of models exported to ONNX); class probabilities alone (the label is the
/// index of the largest); a single number (a probability of label `1` if within 0 to 1, else a
/// decision value whose sign is the label).
///
/// # Errors
/// A sentence that says what is missing or odd.
pub(super) fn read_reply(body: &[u8]) -> Result<ServiceReply, String> {
    let reply: InferReply =
        serde_json::from_slice(body).map_err(|e| format!("the answer is not OIP: {e}"))?;
    let floating = |t: &Tensor| t.datatype.starts_with("FP") || t.datatype.starts_with("BF");
    let mut label = None;
    let mut score = None;
    let mut probabilities: Vec<f32> = Vec::new();
    for t in &reply.outputs {
        let numbers = &t.data.numbers;
        if let Some(text) = t.data.texts.first() {
            label.get_or_insert_with(|| text.clone());
        } else if numbers.is_empty() {
            return Err(format!("output `{}` is empty", t.name));
        } else if numbers.iter().any(|v| !v.is_finite()) {
            return Err(format!("output `{}` has a value that is no number", t.name));
        } else if !floating(t) {
            label.get_or_insert_with(|| format!("{}", numbers[0]));
        } else if numbers.len() > 1 {
            if probabilities.is_empty() {
                probabilities = numbers.iter().map(|&v| v as f32).collect();
            }
        } else if t.name == "predict" || t.name.ends_with("label") {
            // scikit-learn classifiers behind MLServer may give whole labels as floats.
            label.get_or_insert_with(|| format!("{}", numbers[0]));
        } else {
            score.get_or_insert(numbers[0] as f32);
        }
    }
    let (best, largest) = super::first_largest(&probabilities);
    let (label, score) = match (label, score) {
        (Some(label), Some(score)) => (label, score),
        (Some(label), None) if probabilities.is_empty() => (label, 1.0),
        (Some(label), None) => (label, largest),
        (None, _) if !probabilities.is_empty() => (best.to_string(), largest),
        (None, Some(p)) if (0.0..=1.0).contains(&p) => {
            probabilities = vec![1.0 - p, p];
            if p >= 0.5 { ("1".to_owned(), p) } else { ("0".to_owned(), 1.0 - p) }
        }
        (None, Some(decision)) => (if decision > 0.0 { "1" } else { "0" }.to_owned(), decision),
        (None, None) => return Err("the answer has no outputs".to_owned()),
    };
    Ok(ServiceReply {
        label,
        score,
        probabilities,
        model: reply.model_name,
        version: reply.model_version.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(outputs: &str) -> Result<ServiceReply, String> {
        read_reply(format!(r#"{{"model_name":"m","outputs":{outputs}}}"#).as_bytes())
    }

    #[test]
    fn answers_of_other_servers_are_understood() {
        // MLServer, scikit-learn runtime.
        let r = reply(
            r#"[{"name":"predict","shape":[1,1],"datatype":"INT64","data":[1]},
                {"name":"predict_proba","shape":[1,2],"datatype":"FP64","data":[[0.25,0.75]]}]"#,
        );
        let r = r.unwrap();
        assert_eq!((r.label.as_str(), r.score), ("1", 0.75));
        assert_eq!(r.probabilities, [0.25, 0.75]);
        // Triton, ONNX backend, a forest exported without ZipMap.
        let r = read_reply(
            br#"{"model_name":"rf","model_version":"1","outputs":[
                {"name":"label","datatype":"INT64","shape":[1],"data":[0]},
                {"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[0.9,0.1]}]}"#,
        )
        .unwrap();
        assert_eq!((r.label.as_str(), r.score, r.version.as_str()), ("0", 0.9, "1"));
        // String labels alone.
        let r =
            reply(r#"[{"name":"output_label","shape":[1],"datatype":"BYTES","data":["spike"]}]"#);
        assert_eq!(r.map(|r| (r.label, r.score)), Ok(("spike".to_owned(), 1.0)));
        // Class scores alone.
        let r = reply(r#"[{"name":"y","shape":[1,3],"datatype":"FP32","data":[0.1,0.7,0.2]}]"#);
        assert_eq!(r.map(|r| (r.label, r.score)), Ok(("1".to_owned(), 0.7)));
        // One probability, one decision value.
        let one = |v: &str| {
            reply(&format!(r#"[{{"name":"y","shape":[1,1],"datatype":"FP32","data":[{v}]}}]"#))
                .map(|r| (r.label, r.score))
        };
        assert_eq!(one("0.25"), Ok(("0".to_owned(), 0.75)));
        assert_eq!(one("-3.5"), Ok(("0".to_owned(), -3.5)));
    }

    #[test]
    fn answers_without_sense_are_errors() {
        assert!(read_reply(b"<html>").is_err());
        assert!(read_reply(br#"{"error":"no"}"#).is_err());
        assert!(reply("[]").is_err());
        assert!(reply(r#"[{"name":"y","datatype":"FP32","shape":[0],"data":[]}]"#).is_err());
        assert!(reply(r#"[{"name":"y","datatype":"FP32","shape":[1],"data":[null]}]"#).is_err());
    }

    #[test]
    fn inputs_are_written_as_the_model_announces_them() {
        let row = [1.0, 0.5];
        assert_eq!(
            request(&Layout::default(), &row).unwrap(),
            r#"{"inputs":[{"name":"input","shape":[1,2],"datatype":"FP32","data":[1.0,0.5]}]}"#
        );
        let triton = br#"{"inputs":[{"name":"float_input","datatype":"FP64","shape":[-1,2]}]}"#;
        let text = request(&Layout::of(triton, 2), &row).unwrap();
        assert!(text.contains(r#""float_input","shape":[1,2],"datatype":"FP64""#), "{text}");
        let columns = br#"{"inputs":[{"name":"a","datatype":"FP32","shape":[-1]},
            {"name":"b","datatype":"INT64","shape":[-1,1]}]}"#;
        assert_eq!(
            request(&Layout::of(columns, 2), &[3.0, 2.0]).unwrap(),
            r#"{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[3.0]},{"name":"b","shape":[1,1],"datatype":"INT64","data":[2]}]}"#
        );
        assert_eq!(request(&Layout::default(), &[f32::NAN]), None);
        assert_eq!(Layout::of(b"no json", 2), Layout::default());
    }
}
