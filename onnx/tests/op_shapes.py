"""Holds the reader's shapes and constants against the test cases of ONNX for its operators.

    python onnx/tests/op_shapes.py [--only TEXT] [--unknown]

Needs the package `onnx`: pip install onnx. Each case is a model of one operation, with inputs and
what must come out. Behind it stand convolutions whose widths are the sizes of the output plus one, or
its elements plus one, so that what the reader says of them is what it knows: once with only the whole
numbers of the inputs as constants, for the shapes, and once with all inputs. Exits with 1 if anything
that it says is wrong, or a model is refused. What it does not know is counted by operation.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The most elements of an output that are asked for.
ELEMENTS = 9


# What the convolutions need, the same for all.
SHARED = [
    numpy_helper.from_array(np.array([1]), "one"),
    numpy_helper.from_array(np.array([1, 1]), "image"),
    *[numpy_helper.from_array(np.zeros([1] * (n + 2), "f"), f"weights{n}") for n in [1, 2, 3]],
]
SHARED_NAMES = {tensor.name for tensor in SHARED}


class Probe:
    """Convolutions behind the outputs of a model. The name of each ends with what it is to say."""

    def __init__(self, case, model, inputs, constant):
        self.case, self.count, self.names = case, 0, []
        self.model = onnx.ModelProto.FromString(model.SerializeToString())
        self.graph = self.model.graph
        given = [i for i in self.graph.input]
        del self.graph.input[:]
        for info, value in zip(given, inputs):
            if constant(info, value):
                self.graph.initializer.append(numpy_helper.from_array(value, info.name))
                continue
            elem = info.type.tensor_type.elem_type
            self.graph.input.append(helper.make_tensor_value_info(info.name, elem, value.shape))
        self.graph.initializer.extend(SHARED)

    def constant(self, value):
        self.count += 1
        name = f"k{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op, *inputs, name="", **attributes):
        self.count += 1
        out = f"p{self.count}"
        self.graph.node.append(helper.make_node(op, list(inputs), [out], name=name, **attributes))
        return out

    def numbers(self, what, value, numbers):
        """Convolutions of the sizes `numbers` plus one, which the list `value` holds."""
        for at in range(0, len(numbers), 3):
            part, some = value, numbers[at : at + 3]
            if len(numbers) > 3:
                bounds = [self.constant(np.array([at])), self.constant(np.array([at + len(some)]))]
                part = self.op("Slice", value, *bounds)
            shape = self.op("Concat", "image", self.op("Add", part, "one"), axis=0)
            name = f"{self.case}, {what} {at}: {' '.join(str(int(number)) for number in some)}"
            weights = f"weights{len(some)}"
            self.op("Conv", self.op("ConstantOfShape", shape), weights, name=name)
            self.names.append(name)

    def shape(self, output, value):
        shape = self.op("Shape", output)
        if not 1 <= value.ndim <= 3:
            # Otherwise the convolution of the sizes has as many dimensions.
            self.numbers("rank", self.op("Shape", shape), [value.ndim])
        self.numbers("sizes from", shape, value.shape)

    def elements(self, output, value):
        flat = np.asarray(value).reshape(-1)
        if value.dtype.kind not in "iufb" or not 0 < flat.size <= ELEMENTS:
            return
        if value.dtype.kind == "f":
            if value.dtype not in (np.float32, np.float64) or not (flat == np.floor(flat)).all():
                return
        if not ((flat >= 0) & (flat < 1000)).all():
            return
        whole = self.op("Cast", output, to=TensorProto.INT64)
        self.numbers("elements from", self.op("Reshape", whole, self.constant(np.array([-1]))), flat)


def read(model, reader):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        done = subprocess.run([reader, path], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        return [{"error": f"exit code {done.returncode}: {done.stderr[-300:]}"}]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(case, model, inputs, outputs, reader, constant, with_elements):
    """What is right, not known and wrong of a case, and the model that asks."""
    probe = Probe(case, model, inputs, constant)
    for info, value in zip(model.graph.output, outputs):
        if isinstance(value, np.ndarray):
            probe.shape(info.name, value)
            if with_elements:
                probe.elements(info.name, value)
    right, unknown, wrong = [], [], []
    for line in read(probe.model, reader):
        if "error" in line:
            return [], [], [line["error"]], probe.model
        if line["name"] not in probe.names:
            continue
        expected = [int(number) + 1 for number in line["name"].split(": ")[1].split()]
        if "reason" in line:
            unknown.append((line["name"], line["reason"]))
        elif line["input"][2:] == expected:
            right.append(line["name"])
        else:
            wrong.append(f"{line['name']}, and not {[size - 1 for size in line['input'][2:]]}")
    return right, unknown, wrong, probe.model


def parameters(info, value):
    """Whether an input says how the operation works, by its looks."""
    return value.size <= 64 and (value.dtype.kind in "iub" or info.name in ["scales", "roi"])


class Collection:
    """Some cases of each operation in one model, which the tests in Rust read."""

    PER_OPERATION = 2

    def __init__(self):
        self.chosen, self.graphs, self.bytes = collections.Counter(), [], 0

    def add(self, model, right, size_of_inputs):
        key = model.graph.node[0].op_type
        if size_of_inputs > 100 or self.chosen[key] >= self.PER_OPERATION or not right:
            return
        if any(node.domain not in ["", "ai.onnx"] for node in model.graph.node):
            return
        self.chosen[key] += 1
        # Only what the reader knows is asked.
        kept = [n for n in model.graph.node if " " not in n.name or n.name in right]
        needed = {i for n in kept if n.op_type == "Conv" and n.name for i in n.input}
        nodes = []
        for node in reversed(kept):
            is_case = node.name in right or any(out in needed for out in node.output)
            if is_case:
                needed.update(node.input)
                nodes.insert(0, node)
        prefix = f"{len(self.graphs)}"
        rename = lambda names: [
            prefix + name if name and name not in SHARED_NAMES else name for name in names
        ]
        for node in nodes:
            inputs, outputs = rename(node.input), rename(node.output)
            del node.input[:], node.output[:]
            node.input.extend(inputs)
            node.output.extend(outputs)
            node.doc_string = ""
        named = [c for c in model.graph.initializer if c.name not in SHARED_NAMES]
        constants = [c for c in named if c.name in needed]
        values = [v for v in model.graph.input if v.name in needed]
        for named in constants + values:
            named.name = prefix + named.name
        self.graphs.append((nodes, constants, values))

    def save(self, path):
        nodes, constants, values = map(lambda lists: sum(lists, []), zip(*self.graphs))
        graph = helper.make_graph(nodes, "cases", values, [], SHARED + constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
        onnx.save(model, path)
        print(f"{path}: {len(self.graphs)} cases of {len(self.chosen)} operations, {path.stat().st_size} bytes")


def cases():
    with warnings.catch_warnings():
        # The generators of some operators divide by zero on purpose.
        warnings.simplefilter("ignore")
        tests = collect_testcases(None)
    for test in tests:
        inputs, outputs = test.data_sets[0]
        # An input of no elements is one whose size is left open, to this reader.
        if all(isinstance(value, np.ndarray) and value.size for value in inputs):
            yield test.name, test.model, inputs, outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reader", type=pathlib.Path, help="the example `list`, if it is built")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--unknown", action="store_true", help="print what is not known")
    parser.add_argument("--write", action="store_true", help="write cases.onnx, for the tests")
    arguments = parser.parse_args()
    reader = arguments.reader
    if reader is None:
        build = ["cargo", "build", "--quiet", "-p", "convgen-onnx", "--example", "list"]
        subprocess.run(build, check=True, cwd=ROOT)
        metadata = ["cargo", "metadata", "--no-deps", "--format-version=1"]
        done = subprocess.run(metadata, check=True, cwd=ROOT, capture_output=True)
        reader = pathlib.Path(json.loads(done.stdout)["target_directory"]) / "debug/examples/list"
    counts, missing, failed, passed = collections.Counter(), collections.Counter(), 0, 0
    collection = Collection()
    for name, model, inputs, outputs in cases():
        if arguments.only not in name:
            continue
        rounds = [(parameters, False), (lambda info, value: True, True)]
        problems = []
        for constant, with_elements in rounds:
            case = name.removeprefix("test_")
            right, unknown, wrong, asking = check(
                case, model, inputs, outputs, reader, constant, with_elements
            )
            counts.update(right=len(right), unknown=len(unknown), wrong=len(wrong))
            problems += wrong
            if any(", elements" not in name for name, _ in unknown):
                missing[model.graph.node[0].op_type] += 1
            if arguments.unknown:
                for which, reason in unknown:
                    print(f"unknown {which}: {reason}")
            folds = any(", elements" in name for name in right)
            if arguments.write and not name.endswith("_expanded") and not wrong:
                if not with_elements or folds:
                    collection.add(asking, right, sum(i.size for i in inputs) if with_elements else 0)
        for problem in problems:
            print(f"FAILED {name}: {problem}")
        failed, passed = failed + bool(problems), passed + (not problems)
    if arguments.write:
        collection.save(pathlib.Path(__file__).parent / "cases.onnx")
    print(f"onnx {onnx.__version__}: {dict(counts)} lists of sizes and elements")
    print("shapes not known: " + ", ".join(f"{op} {n}" for op, n in missing.most_common()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
