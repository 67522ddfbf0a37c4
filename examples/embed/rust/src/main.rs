//! recommend MODEL USER: what a model file that Python wrote has for somebody.
mod recfuse;

use recfuse::{List, Model, Query, Result};

fn show(model: &Model, title: &str, list: &List) -> Result<()> {
    println!("{title}");
    for (item, score) in list {
        println!("  {} {score:.6} {:08x}", model.item_id(*item)?, score.to_bits());
    }
    Ok(())
}

fn run(path: &str, name: &str) -> Result<()> {
    let model = Model::open(path)?;
    let user = model.user_row(name)?;
    let query = Query { k: 3, ..Query::default() };
    let list = model.recommend(user, &query)?;
    show(&model, &format!("for {name}"), &list)?;

    let best = list.first().ok_or("nothing to recommend")?.0;
    let title = model.item_id(best)?;
    let last = model.modalities.last().ok_or("a model without modalities")?;
    let mut weights = vec![0.0; model.modalities.len()];
    *weights.last_mut().unwrap() = 1.0;
    let narrow = Query { weights, exclude: vec![best], ..query.clone() };
    let list = model.recommend(user, &narrow)?;
    show(&model, &format!("for {name}, by {} alone, without {title}", last.name), &list)?;

    show(&model, &format!("like {title}"), &model.similar(best, &query)?)?;

    let ones = vec![1.0; last.dim];
    let mut vectors = vec![None; model.modalities.len()];
    *vectors.last_mut().unwrap() = Some(&ones[..]);
    show(&model, &format!("for a vector of {}", last.name), &model.search(&vectors, &query)?)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, user] = &arguments[..] else {
        eprintln!("usage: recommend MODEL USER");
        std::process::exit(2);
    };
    if let Err(message) = run(path, user) {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
