//! Models written byte by byte, which no exporter would write.

/// A field of bytes, a text or a message.
pub fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

/// A whole number.
pub fn number(tag: u8, value: i64) -> Vec<u8> {
    let mut out = vec![tag << 3];
    out.extend(varint(value as u64));
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A list of 64-bit numbers, or one of them if `dims` is empty.
pub fn tensor(name: &str, dims: &[i64], values: &[i64]) -> Vec<u8> {
    let mut out: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    out.extend(number(2, 7));
    out.extend(field(8, name.as_bytes()));
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    out.extend(field(9, &raw));
    out
}

/// Single floats that are stated, but not given.
pub fn weights(name: &str, dims: &[i64]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|dim| number(1, *dim));
    dims.chain(number(2, 1)).chain(field(8, name.as_bytes())).collect()
}

/// Inputs and outputs are separated by blanks; attributes are messages.
pub fn node(op: &str, inputs: &str, outputs: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let texts = |tag, names: &str| -> Vec<u8> {
        names.split_whitespace().flat_map(|name| field(tag, name.as_bytes())).collect()
    };
    let mut out = [texts(1, inputs), texts(2, outputs), field(4, op.as_bytes())].concat();
    attributes.iter().for_each(|attribute| out.extend(field(5, attribute)));
    out
}

/// An attribute that is a number.
pub fn int(name: &str, value: i64) -> Vec<u8> {
    [field(1, name.as_bytes()), number(3, value)].concat()
}

/// An attribute that is a graph.
pub fn subgraph(name: &str, graph: &[u8]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(6, graph)].concat()
}

pub fn graph(nodes: &[Vec<u8>], constants: &[Vec<u8>], outputs: &[&str]) -> Vec<u8> {
    let mut out: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    constants.iter().for_each(|constant| out.extend(field(5, constant)));
    outputs.iter().for_each(|name| out.extend(field(12, &field(1, name.as_bytes()))));
    out
}

pub fn model(graph: &[u8]) -> Vec<u8> {
    field(7, graph)
}
