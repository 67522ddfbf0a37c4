//! What the program needs of recfuse.h, and a `Model` that cannot be misused.
use std::ffi::{c_char, CStr, CString};
use std::mem::size_of;
use std::ptr;

#[repr(C)]
struct RawModel {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawInfo {
    struct_size: usize,
    n_users: i64,
    n_items: i64,
    n_modalities: i64,
    user_id_kind: i32,
    item_id_kind: i32,
}

#[repr(C)]
struct RawModality {
    struct_size: usize,
    name: *const c_char,
    dim: i64,
    weight: f64,
}

#[repr(C)]
struct RawQuery {
    struct_size: usize,
    k: i64,
    weights: *const f64,
    n_weights: i64,
    exclude: *const i32,
    n_exclude: i64,
    allow: *const i32,
    n_allow: i64,
    include_seen: i32,
    num_threads: i32,
}

#[rustfmt::skip]
extern "C" {
    fn recfuse_last_error() -> *const c_char;
    fn recfuse_model_open(path: *const c_char, verify: i32, model: *mut *mut RawModel) -> i32;
    fn recfuse_model_close(model: *mut RawModel);
    fn recfuse_model_info(model: *const RawModel, info: *mut RawInfo) -> i32;
    fn recfuse_model_modality(model: *const RawModel, index: i64, modality: *mut RawModality) -> i32;
    fn recfuse_user_row(model: *const RawModel, id: *const c_char, length: usize, row: *mut i64) -> i32;
    fn recfuse_item_id(model: *const RawModel, row: i64, text: *mut c_char, capacity: usize, length: *mut usize) -> i32;
    fn recfuse_recommend(model: *const RawModel, users: *const i64, n_users: i64, query: *const RawQuery,
                         items: *mut i32, scores: *mut f32) -> i32;
    fn recfuse_search(model: *const RawModel, vectors: *const *const f32, n_modalities: i64, n_queries: i64,
                      query: *const RawQuery, items: *mut i32, scores: *mut f32) -> i32;
    fn recfuse_similar(model: *const RawModel, like: *const i64, n_like: i64, query: *const RawQuery,
                       items: *mut i32, scores: *mut f32) -> i32;
}

pub type Result<T> = std::result::Result<T, String>;

/// The sentence of the library where a status is an error; it is that of this thread.
fn check(status: i32) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(recfuse_last_error()) }.to_string_lossy().into_owned())
}

/// Best first; a list can be shorter than `k`.
pub type List = Vec<(i32, f32)>;

/// What a request asks beside its user, item or vectors.
#[derive(Clone, Default)]
pub struct Query {
    pub k: usize,
    /// One per modality; empty: those of the user, or of the model.
    pub weights: Vec<f64>,
    pub exclude: Vec<i32>,
}

pub struct Modality {
    pub name: String,
    pub dim: usize,
}

pub struct Model {
    raw: *mut RawModel,
    pub modalities: Vec<Modality>,
}

// Any number of threads may ask one model.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { recfuse_model_close(self.raw) }
    }
}

impl Model {
    pub fn open(path: &str) -> Result<Model> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let mut model = Model { raw: ptr::null_mut(), modalities: Vec::new() };
        check(unsafe { recfuse_model_open(path.as_ptr(), 0, &mut model.raw) })?;
        let mut info = RawInfo {
            struct_size: size_of::<RawInfo>(),
            n_users: 0,
            n_items: 0,
            n_modalities: 0,
            user_id_kind: 0,
            item_id_kind: 0,
        };
        check(unsafe { recfuse_model_info(model.raw, &mut info) })?;
        for index in 0..info.n_modalities {
            let modality = model.modality(index)?;
            model.modalities.push(modality);
        }
        Ok(model)
    }

    fn modality(&self, index: i64) -> Result<Modality> {
        let struct_size = size_of::<RawModality>();
        let mut raw = RawModality { struct_size, name: ptr::null(), dim: 0, weight: 0.0 };
        check(unsafe { recfuse_model_modality(self.raw, index, &mut raw) })?;
        let name = unsafe { CStr::from_ptr(raw.name) }.to_string_lossy().into_owned();
        Ok(Modality { name, dim: raw.dim as usize })
    }

    pub fn user_row(&self, id: &str) -> Result<i64> {
        let mut row = -1;
        check(unsafe { recfuse_user_row(self.raw, id.as_ptr().cast(), id.len(), &mut row) })?;
        Ok(row)
    }

    pub fn item_id(&self, row: i32) -> Result<String> {
        let mut length = 0;
        check(unsafe { recfuse_item_id(self.raw, row.into(), ptr::null_mut(), 0, &mut length) })?;
        let mut text = vec![0u8; length + 1];
        let out = text.as_mut_ptr().cast();
        check(unsafe { recfuse_item_id(self.raw, row.into(), out, text.len(), &mut length) })?;
        text.truncate(length);
        String::from_utf8(text).map_err(|error| error.to_string())
    }

    pub fn recommend(&self, user: i64, query: &Query) -> Result<List> {
        ask(query, |raw, items, scores| unsafe { recfuse_recommend(self.raw, &user, 1, raw, items, scores) })
    }

    pub fn similar(&self, item: i32, query: &Query) -> Result<List> {
        let like = i64::from(item);
        ask(query, |raw, items, scores| unsafe { recfuse_similar(self.raw, &like, 1, raw, items, scores) })
    }

    /// `vectors`: one per modality, None where it is not asked.
    pub fn search(&self, vectors: &[Option<&[f32]>], query: &Query) -> Result<List> {
        let as_said = vectors.len() == self.modalities.len()
            && vectors.iter().zip(&self.modalities).all(|(v, m)| v.map_or(true, |v| v.len() == m.dim));
        if !as_said {
            return Err("vectors must be one per modality, each as long as its dim".into());
        }
        let pointers: Vec<_> = vectors.iter().map(|v| v.map_or(ptr::null(), <[f32]>::as_ptr)).collect();
        ask(query, |raw, items, scores| unsafe {
            recfuse_search(self.raw, pointers.as_ptr(), pointers.len() as i64, 1, raw, items, scores)
        })
    }
}

fn ask(query: &Query, call: impl FnOnce(&RawQuery, *mut i32, *mut f32) -> i32) -> Result<List> {
    let some = !query.weights.is_empty();
    let raw = RawQuery {
        struct_size: size_of::<RawQuery>(),
        k: query.k as i64,
        weights: if some { query.weights.as_ptr() } else { ptr::null() },
        n_weights: query.weights.len() as i64,
        exclude: query.exclude.as_ptr(),
        n_exclude: query.exclude.len() as i64,
        allow: ptr::null(),
        n_allow: 0,
        include_seen: 0,
        num_threads: 0,
    };
    let (mut items, mut scores) = (vec![-1; query.k], vec![0.0; query.k]);
    check(call(&raw, items.as_mut_ptr(), scores.as_mut_ptr()))?;
    Ok(items.into_iter().zip(scores).take_while(|(item, _)| *item >= 0).collect())
}
