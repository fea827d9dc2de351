use super::*;

#[test]
fn temporary() {
    let path = std::env::var("S_FILE").unwrap();
    let file = crate::modules::open(std::path::Path::new(&path)).unwrap();
    let module = Module {
        path: path.clone(),
        range: crate::AddrRange { start: Addr(0), end: Addr(u64::MAX) },
        segments: vec![],
        image: crate::AddrRange { start: Addr(0), end: Addr(u64::MAX) },
        bias: 0,
        build_id: file.build_id.clone(),
        file: Ok(Arc::new(file)),
    };
    let options = SymbolOptions { this_host: true, ..SymbolOptions::default() };
    let symbols = Symbols::new(options);
    let started = std::time::Instant::now();
    for line in std::fs::read_to_string(std::env::var("S_ADDRS").unwrap()).unwrap().lines() {
        let at: Addr = line.parse().unwrap();
        println!("{at}");
        for place in symbols.locate(&module, at) {
            println!("{}", place.function.unwrap_or("??".into()));
            println!(
                "{}:{}",
                place.file.unwrap_or("??".into()),
                place.line.map_or("?".into(), |l| l.to_string())
            );
        }
    }
    eprintln!("{:?}", started.elapsed());
    eprintln!("{:?}", symbols.gaps());
}
