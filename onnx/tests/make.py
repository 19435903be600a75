"""Makes the models beside this file. Needs the package `onnx`: pip install onnx; python onnx/tests/make.py

Weights are inputs of the graph or come from ConstantOfShape, so that the files stay small.
"""

import pathlib

import onnx
from onnx import TensorProto, helper, numpy_helper
import numpy as np

HERE = pathlib.Path(__file__).parent


class Graph:
    def __init__(self, name, input_name, shape):
        self.name = name
        self.nodes, self.constants, self.value_info = [], [], []
        self.inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)]
        self.count = 0

    def op(self, op, *inputs, name="", outputs=1, **attributes):
        self.count += 1
        made = [f"v{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def weights(self, *shape):
        self.count += 1
        name = f"w{self.count}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, values, dtype=np.int64):
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def conv(self, x, ic, oc, k, name="", bias=False, op="Conv", **attributes):
        group = attributes.get("group", 1)
        shape = (ic, oc // group, k, k) if op == "ConvTranspose" else (oc, ic // group, k, k)
        inputs = [x, self.weights(*shape)] + ([self.weights(oc)] if bias else [])
        return self.op(op, *inputs, name=name, **attributes)

    def conv1(self, name, x, channels):
        """A convolution of one axis with a kernel of 1."""
        return self.op("Conv", x, self.weights(channels, channels, 1), name=name)

    def save(self, output, shape, functions=(), domains=()):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, [result], self.constants, value_info=self.value_info
        )
        opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid(name, 1) for name in domains]
        model = helper.make_model(graph, opset_imports=opsets, functions=functions)
        model.ir_version = 8
        if not domains:
            onnx.checker.check_model(model)
        path = HERE / f"{self.name}.onnx"
        onnx.save(model, path)
        assert path.stat().st_size < 20_000, path
        return model


def resnet50():
    """ResNet-50, batch normalization after each convolution, a symbolic batch."""
    g = Graph("resnet50", "image", ["N", 3, 224, 224])

    def norm(x, c):
        s = g.constant_of(c)
        return g.op("BatchNormalization", x, s, s, s, s)

    def constant_of(c, cache={}):
        if c not in cache:
            cache[c] = g.weights(c)
        return cache[c]

    g.constant_of = constant_of
    shared = {}

    def conv(x, ic, oc, k, name, **attributes):
        # Blocks that are alike share their weights: what counts is the graph.
        if (ic, oc, k) not in shared:
            shared[ic, oc, k] = g.weights(oc, ic, k, k)
        return norm(g.op("Conv", x, shared[ic, oc, k], name=name, **attributes), oc)

    x = g.op("Relu", conv(x="image", ic=3, oc=64, k=7, name="stem", strides=[2, 2], pads=[3, 3, 3, 3]))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    ic = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 2):
        for block in range(blocks):
            stride = 2 if stage > 2 and block == 0 else 1
            tag = f"res{stage}{'abcdef'[block]}"
            y = g.op("Relu", conv(x, ic, width, 1, f"{tag}_a"))
            y = g.op("Relu", conv(y, width, width, 3, f"{tag}_b", strides=[stride] * 2, pads=[1] * 4))
            y = conv(y, width, 4 * width, 1, f"{tag}_c")
            if block == 0:
                x = conv(x, ic, 4 * width, 1, f"{tag}_skip", strides=[stride] * 2)
            x = g.op("Relu", g.op("Add", x, y))
            ic = 4 * width
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    g.save(g.op("Gemm", x, g.weights(2048, 1000)), ["N", 1000])


def dynamic():
    """Batch, height and width are symbols; a reshape in the way that PyTorch exports it."""
    g = Graph("dynamic", "image", ["batch", 3, "height", "width"])
    x = g.conv("image", 3, 8, 3, "first", bias=True, pads=[1, 1, 1, 1])
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = g.conv(x, 8, 16, 3, "second", strides=[2, 2], auto_pad="SAME_UPPER")
    batch = g.op("Gather", g.op("Shape", x), g.constant(0), axis=0)
    shape = g.op("Concat", g.op("Unsqueeze", batch, g.constant([0])), g.constant([16, -1]), axis=0)
    x = g.op("Reshape", x, shape)
    x = g.op("Conv", x, g.weights(4, 16, 5), name="third", auto_pad="SAME_LOWER")
    g.save(x, ["batch", 4, "columns"])


def ops():
    """Every operation between convolutions that changes a shape, and what is not computed."""
    g = Graph("ops", "image", [1, 4, 20, 24])
    x = g.op("Pad", "image", g.constant([0, 0, 1, 2, 0, 0, 1, 2]))
    x = g.conv(x, 4, 8, 3, "padded", group=2, dilations=[2, 1])  # 18 x 26
    x = g.op("Clip", x)
    x = g.op("Resize", x, "", g.constant([1, 1, 2, 0.5], np.float32), mode="nearest")  # 36 x 13
    x = g.conv(x, 8, 8, 3, "depthwise", group=8, pads=[0, 1, 1, 1], bias=True)  # 35 x 13
    a, b = g.op("Split", x, axis=1, outputs=2)
    x = g.op("Concat", g.op("Sigmoid", b), g.op("Mul", a, g.op("GlobalAveragePool", a)), x, axis=1)
    x = g.op("AveragePool", x, kernel_shape=[5, 3], strides=[5, 3], ceil_mode=1, pads=[0, 1, 0, 0])  # 7 x 5
    x = g.conv(x, 16, 4, 1, "pointwise")
    x = g.op("Dropout", x)
    x = g.conv(x, 4, 6, 2, "up", op="ConvTranspose", strides=[2, 2], output_padding=[1, 0])  # 15 x 10
    x = g.op("Slice", x, g.constant([1, -8]), g.constant([15, 100]), g.constant([2, 3]))  # 14 x 8
    x = g.op("Transpose", x, perm=[0, 1, 3, 2])
    x = g.conv(x, 6, 6, 3, "turned", auto_pad="VALID")  # 6 x 12
    x = g.op("SpaceToDepth", x, blocksize=2)
    x = g.op("Squeeze", g.op("Unsqueeze", x, g.constant([2])), g.constant([2]))
    x = g.conv(x, 24, 24, 1, "blocks")
    half = g.op("ConstantOfShape", g.constant([2, 24, 1, 1]), value=helper.make_tensor("v", TensorProto.FLOAT16, [1], [0]))
    g.op("Conv", g.op("Cast", x, to=TensorProto.FLOAT16), half, name="half")
    x = g.op("Unsqueeze", g.op("NonZero", x, name="places"), g.constant([0]))
    g.op("Conv", g.op("Cast", x, to=TensorProto.FLOAT), g.weights(2, 4, 1), name="unknown")
    stated = g.op("NonMaxSuppression", g.weights(1, 9, 4), g.weights(1, 1, 9))
    g.value_info.append(helper.make_tensor_value_info(stated, TensorProto.INT64, [6, 3]))
    y = g.op("Cast", g.op("Unsqueeze", stated, g.constant([0])), to=TensorProto.FLOAT)
    g.save(g.op("Conv", y, g.weights(5, 6, 3), name="stated"), [1, 5, 1])


def transposed():
    """The ways in which a transposed convolution says what it writes."""
    g = Graph("transposed", "image", [1, 4, 7, 5])
    up = lambda name, **attributes: g.conv("image", 4, 6, 3, name, op="ConvTranspose", **attributes)
    up("plain", bias=True)
    up("pads", strides=[2, 2], pads=[1, 0, 1, 2], output_padding=[1, 0])
    up("groups", group=2, dilations=[2, 1], auto_pad="VALID")
    up("upper", strides=[2, 2], auto_pad="SAME_UPPER")
    up("lower", strides=[2, 2], auto_pad="SAME_LOWER")
    up("wide", strides=[4, 4], auto_pad="SAME_UPPER")
    g.save(up("stated", strides=[2, 3], output_shape=[14, 16]), [1, 6, 14, 16])


def one():
    """One convolution of two channels, over any number of images."""
    g = Graph("one", "image", ["N", 2, 3, 3])
    g.save(g.conv("image", 2, 1, 2, "only"), ["N", 1, 2, 2])


def padding():
    """What PyTorch writes for `F.pad(x, (2, 1))`, where the shape is not known as it exports."""
    g = Graph("padding", "signal", [1, 1, 32])
    rank = g.op("Constant", value=numpy_helper.from_array(np.array([4])))
    zeros = g.op("ConstantOfShape", rank, value=helper.make_tensor("v", TensorProto.INT64, [1], [0]))
    pads = g.op("Concat", g.constant([2, 1]), zeros, axis=0)
    pads = g.op("Reshape", pads, g.constant([-1, 2]))
    pads = g.op("Slice", pads, g.constant([-1]), g.constant([np.iinfo(np.int64).min]), g.constant([0]), g.constant([-1]))
    pads = g.op("Reshape", g.op("Transpose", pads, perm=[1, 0]), g.constant([-1]))
    x = g.op("Pad", "signal", g.op("Cast", pads, to=TensorProto.INT64))
    g.save(g.op("Conv", x, g.weights(1, 1, 3), name="padded"), [1, 1, 33])


def partial():
    """Sizes that follow although others do not."""
    g = Graph("partial", "image", [1, 8, 16, 16])
    found = g.op("Shape", g.op("NonZero", g.op("Flatten", "image"), name="places"))
    count = g.op("Gather", found, g.constant([1]), axis=0)  # not known
    # A shape of which one element is not known; the input's elements say what it is.
    shape = g.op("Concat", g.constant([1]), count, g.constant([64]), axis=0)
    g.conv1("computed", g.op("Reshape", "image", g.op("Concat", g.constant([1, 8]), count, axis=0)), 8)  # 256
    # The rest is not known, but the channels are, and what is pooled over the rest.
    x = g.op("Expand", g.weights(1, 1, 1), g.op("Concat", g.constant([1, 4]), count, axis=0))
    x = g.conv1("open", x, 4)
    g.conv1("pooled", g.op("GlobalAveragePool", x), 4)  # 1
    # A broadcast with a size that is known.
    g.conv1("broadcast", g.op("Add", x, g.weights(1, 1, 7)), 4)  # 7
    # Elements behind the one that is not known.
    last = g.op("Slice", shape, g.constant([-1]), g.constant([9]))
    g.conv1("sliced", g.op("ConstantOfShape", g.op("Concat", g.constant([1, 4]), last, axis=0)), 4)  # 64
    same = g.op("Where", g.op("Equal", shape, g.constant([1, 1, 64])), g.constant([1, 4, 9]), shape)
    g.conv1("chosen", g.op("ConstantOfShape", same), 4)
    # Half of a known number, by floats.
    half = g.op("Cast", g.op("Gather", g.op("Shape", "image"), g.constant([2]), axis=0), to=TensorProto.FLOAT)
    half = g.op("Cast", g.op("Floor", g.op("Mul", half, g.constant([0.45], np.float32))), to=TensorProto.INT64)
    sizes = g.op("Concat", g.op("Slice", g.op("Shape", "image"), g.constant([0]), g.constant([3])), half, axis=0)
    x = g.op("Resize", "image", "", "", sizes)
    g.save(g.conv(x, 8, 8, 1, "resized"), [1, 8, 16, 7])


def names():
    """Two inputs with sizes of one name, and one with none."""
    g = Graph("names", "left", [1, 2, "?"])
    g.inputs.append(helper.make_tensor_value_info("right", TensorProto.FLOAT, [1, 2, "?"]))
    g.inputs.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, 2, "length"]))
    g.inputs.append(helper.make_tensor_value_info("narrow", TensorProto.FLOAT, [1, 2, "length"]))
    g.inputs.append(helper.make_tensor_value_info("plain", TensorProto.FLOAT, [1, 2, None]))
    for name in ["left", "right", "wide", "narrow"]:
        g.conv1(name, name, 2)
    g.save(g.conv1("plain", "plain", 2), [1, 1, None])


def branches():
    """Graphs inside of nodes."""
    g = Graph("branches", "image", [1, 4, 8, 8])
    g.inputs.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    w = g.weights(4, 4, 1, 1)

    def graph(name, *steps):
        nodes, x = [], "image"
        for i, (op, inputs, attributes) in enumerate(steps):
            nodes.append(helper.make_node(op, [x, *inputs], [f"{name}{i}"], name=f"{name}_{op}{i}", **attributes))
            x = f"{name}{i}"
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)])

    conv = ("Conv", [w], {})
    strided = ("Conv", [w], {"strides": [2, 2]})
    pool = ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]})
    misfit = ("Reshape", [g.constant([7, 7])], {})
    # The batch is 1, as the shape says.
    batch = g.op("Gather", g.op("Shape", "image"), g.constant(0), axis=0)
    is_one = g.op("Equal", batch, g.constant(1))
    x = g.op("If", is_one, then_branch=graph("taken", conv, pool), else_branch=graph("never", misfit, conv))
    g.conv(x, 4, 4, 1, "after_taken")
    x = g.op("If", "condition", then_branch=graph("yes", conv, pool), else_branch=graph("no", strided))
    g.conv(x, 4, 4, 1, "agreed")
    x = g.op("If", "condition", then_branch=graph("small", pool), else_branch=graph("large", ("Identity", [], {})))
    g.conv(x, 4, 4, 1, "differing")
    g.conv(g.op("GlobalAveragePool", x), 4, 4, 1, "pooled")
    x = g.op("If", "condition", then_branch=graph("wrong", misfit, conv), else_branch=graph("right", conv), name="either")
    g.conv(x, 4, 4, 1, "unsure")
    nodes = [helper.make_node("Conv", ["state", w], ["next"], name="looped"), helper.make_node("Identity", ["going"], ["on"])]
    values = [helper.make_tensor_value_info(*v) for v in [("i", TensorProto.INT64, []), ("going", TensorProto.BOOL, []), ("state", TensorProto.FLOAT, None)]]
    results = [helper.make_tensor_value_info(*v) for v in [("on", TensorProto.BOOL, []), ("next", TensorProto.FLOAT, None)]]
    body = helper.make_graph(nodes, "body", values, results)
    x = g.op("Loop", g.constant(3), "", "image", body=body, name="loop")
    g.save(g.conv(x, 4, 4, 1, "after_loop"), [1, 4, 8, 8])


def relatives():
    """Convolutions of other types and other names, functions, and weights that are computed."""
    g = Graph("relatives", "image", [1, 4, 8, 8])
    byte = lambda *shape: g.op("ConstantOfShape", g.constant(shape), value=helper.make_tensor("v", TensorProto.UINT8, [1], [0]))
    scale, zero = g.constant(0.5, np.float32), g.constant(3, np.uint8)
    quantised = g.op("QuantizeLinear", "image", scale, zero)
    g.conv(g.op("DequantizeLinear", quantised, scale, zero), 4, 4, 1, "dequantised")
    g.op("Conv", "image", g.op("DequantizeLinear", byte(6, 4, 3, 3), scale, zero), name="dequantised_weights")
    g.op("Conv", "image", byte(6, 4, 3, 3), name="bytes")
    x = g.op("ConvInteger", quantised, byte(6, 4, 3, 3), name="integers")
    g.conv(g.op("Cast", x, to=TensorProto.FLOAT), 6, 4, 1, "after_integers")
    x = g.op("QLinearConv", quantised, scale, zero, byte(5, 4, 1, 1), scale, zero, scale, zero, name="quantised", strides=[2, 2])
    g.conv(g.op("DequantizeLinear", x, scale, zero), 5, 4, 1, "after_quantised")
    g.op("FusedConv", "image", g.weights(6, 4, 3, 3), g.weights(6), name="fused", domain="com.microsoft", activation="Relu", pads=[1, 1, 1, 1])
    g.op("Conv", "image", g.weights(6, 4, 3, 3), name="others", domain="somebody.else")
    g.conv(g.op("Odd", "image", name="odd", domain="somebody.else"), 4, 4, 1, "after_odd")
    g.op("Twice", "image", name="call", domain="local")
    g.op("Plain", "image", name="plain", domain="local")
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = helper.make_node("Conv", ["x", "w"], ["y"], name="inner")
    functions = [
        helper.make_function("local", "Twice", ["x"], ["y"], [helper.make_node("Once", ["x"], ["y"], domain="local")], opset),
        helper.make_function("local", "Once", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["w"]), inner], opset),
        helper.make_function("local", "Plain", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opset),
    ]
    domains = ["com.microsoft", "somebody.else", "local"]
    g.save(g.conv("image", 4, 4, 1, "last"), [1, 4, 8, 8], functions, domains)


resnet50()
dynamic()
ops()
transposed()
one()
padding()
partial()
names()
branches()
relatives()
