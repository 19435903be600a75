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

    def save(self, output, shape):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, [result], self.constants, value_info=self.value_info
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
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
    x = g.op("NonZero", x)
    g.op("Conv", g.op("Cast", x, to=TensorProto.FLOAT), g.weights(2, 2, 1), name="unknown")
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


resnet50()
dynamic()
ops()
transposed()
one()
