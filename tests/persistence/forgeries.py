"""Forged model files: each tries to do something that loading a file must never do.

`FORGERIES` has a function per forgery, by name. Each is called with the path of the file to write
and with `marker`, a path that the payload tries to create, to write or to read. A function may put
bait beside the marker; the forged file alone must not be able to reach it.
"""

import json
import os

import numpy as np
import safetensors.numpy

from sk_asd._versions import versions
from sk_asd.persistence._file import FORMAT, _digest

FORGERIES = {}


def forgery(function):
    """Enter a function into the table."""
    FORGERIES[function.__name__] = function
    return function


# Files


def header_of(arrays, **changes):
    """Header that suits arrays."""
    header = {
        "format": FORMAT,
        "versions": versions(),
        "estimator": {"class": "KNNDetector"},
        "sha256": _digest(arrays),
    }
    return {**header, **changes}


def forge(path, tree, arrays=None, **header):
    """Write a file whose digest is right; `tree` is a dict, or the JSON as bytes."""
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    arrays = {"estimator.json": np.frombuffer(text, np.uint8), **(arrays or {})}
    metadata = {"sk_asd": json.dumps(header_of(arrays, **header))}
    with open(path, "wb") as file:
        file.write(safetensors.numpy.save(arrays, metadata))


def forge_raw(path, entries, data=b"", metadata=None):
    """Write a file of safetensors whose own header is any JSON, or bytes."""
    header = {"__metadata__": metadata or {"sk_asd": json.dumps(header_of({}))}}
    text = entries if isinstance(entries, bytes) else json.dumps({**header, **entries}).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def obj(name, params=None, state=None):
    """Entry of an object."""
    return {"class": name, "params": params or {}, "state": state or {}}


def model(*objects, root=None):
    """Description of a file whose root is the last object."""
    root = {"ref": len(objects) - 1} if root is None else root
    return {"root": root, "objects": list(objects), "places": {}}


def mapping(**pairs):
    """A dict, as the file has it."""
    return {"dict": [[key, value] for key, value in pairs.items()]}


KNN = "sk_asd.detectors.KNNDetector"
LOGMEL = "sk_asd.features.LogMel"
LOF = "sklearn.neighbors.LocalOutlierFactor"
NEIGHBORS = "sklearn.neighbors.NearestNeighbors"
PIPELINE = "sklearn.pipeline.Pipeline"
SEARCH = "sklearn.model_selection.GridSearchCV"
EMBEDDER = "sk_asd.embedders.SectionEmbedder"
AUTOENCODER = "sk_asd.detectors.AutoEncoderDetector"
FLOW = "sk_asd.detectors.WSPFlowDetector"
TINY = {"max_updates": 1, "batch_size": 2, "module__channels": 8, "checkpoint_every": 1}
SCRIPT = "<img src=x onerror=run()>"


def network(name, **architecture):
    """An estimator whose network is to be built from these sizes."""
    net = mapping(weights=[mapping(), mapping()], history=[])
    return obj(name, state={"net_": net, "_architecture": mapping(**architecture)})


# Names of classes and functions


@forgery
def class_os_system(path, marker):
    """A function in the place of a class."""
    forge(path, model(obj("os.system", {"command": f"touch {marker}"})))


@forgery
def class_through_the_package(path, marker):
    """A module of the package that has imported `os`."""
    forge(path, model(obj("sk_asd.persistence._file.os.system", {"command": f"touch {marker}"})))


@forgery
def value_names_exec(path, marker):
    """A builtin as the value of a parameter."""
    forge(path, model(obj(KNN, {"metric": {"name": "builtins.exec"}})))


@forgery
def named_class_is_made(path, marker):
    """A class that may be named, not called, as an object."""
    forge(path, model(obj("torch.optim.SGD", {"params": [], "lr": 1})))


@forgery
def class_with_odd_case(path, marker):
    """Names that only look alike."""
    forge(path, model(obj("sk_asd.detectors.KNNDetector\u200b"), obj("SK_ASD.DETECTORS.KNN")))


@forgery
def class_is_a_list(path, marker):
    """A class that is no text."""
    forge(path, model({"class": ["os.system"], "params": {}, "state": {}}))


@forgery
def kind_reduce(path, marker):
    """Kinds of other formats."""
    forge(path, model(root={"py/reduce": [{"py/function": "os.system"}, f"touch {marker}"]}))


@forgery
def kind_is_a_method(path, marker):
    """A kind that is a method of the decoder."""
    forge(path, model(root={"make": obj(KNN)}))


@forgery
def untrusted_backbone(path, marker):
    """The class of a backbone from the standard library."""
    forge(path, model(obj(EMBEDDER, {"backbone": {"name": "subprocess.Popen"}})))


@forgery
def metric_is_a_named_function(path, marker):
    """A named function as metric, which building the trees again calls."""
    params = {"metric": {"name": "sk_asd.metrics.dcase_score"}, "n_jobs": None, "novelty": True}
    tree = model(obj(LOF, params, {"_fit_X": {"array": "x"}}))
    forge(path, tree, {"x": np.random.default_rng(0).random((30, 3))})


@forgery
def metric_is_a_network(path, marker):
    """A class of a network as metric of neighbours."""
    params = {"metric": {"name": "sk_asd.networks.AutoEncoder"}, "n_jobs": None}
    tree = model(obj(NEIGHBORS, params, {"_fit_X": {"array": "x"}}))
    forge(path, tree, {"x": np.random.default_rng(0).random((50, 3))})


@forgery
def metric_pyfunc(path, marker):
    """The metric that takes its function from the parameters."""
    function = mapping(func={"name": "sk_asd.metrics.dcase_score"})
    params = {"metric": "pyfunc", "metric_params": function, "n_jobs": None}
    params["algorithm"] = "ball_tree"
    tree = model(obj(NEIGHBORS, params, {"_fit_X": {"array": "x"}}))
    forge(path, tree, {"x": np.random.default_rng(0).random((50, 3))})


# Attributes


@forgery
def state_shadows_a_method(path, marker):
    """A class in the place of a method."""
    forge(path, model(obj(KNN, {}, {"fit": {"name": "torch.optim.SGD"}})))


@forgery
def state_class(path, marker):
    """Another class of the object."""
    forge(path, model(obj(KNN, {}, {"__class__": {"name": "torch.optim.SGD"}})))


@forgery
def state_clone_hook(path, marker):
    """A hook of `clone`."""
    forge(path, model(obj(KNN, {}, {"__sklearn_clone__": {"name": "torch.optim.SGD"}})))


@forgery
def state_is_a_parameter(path, marker):
    """A place on the machine, as a fitted attribute."""
    forge(path, model(obj(LOGMEL, {}, {"cache_dir": str(marker)})))


@forgery
def search_with_a_scorer(path, marker):
    """The scorer of a search, a function."""
    state = {"scorer_": {"name": "sk_asd.metrics.dcase_score"}}
    forge(path, model(obj(KNN), obj(SEARCH, {"estimator": {"ref": 0}, "param_grid": []}, state)))


@forgery
def pipeline_with_state(path, marker):
    """An attribute of a class that has no state."""
    forge(path, model(obj(PIPELINE, {"steps": []}, {"_check_n_features": 1})))


@forgery
def net_parameters_that_shadow(path, marker):
    """Parameters by prefix, which become attributes."""
    params = {"module____class__": 1, "callbacks____init__": 2, "optimizer__": 3, "module__": [4]}
    forge(path, model(obj(EMBEDDER, params)))


@forgery
def net_parameters_markup(path, marker):
    """A parameter whose name is markup."""
    forge(path, model(obj(EMBEDDER, {f"module__{SCRIPT}": SCRIPT})))


@forgery
def step_names_markup(path, marker):
    """Names of steps that are markup."""
    steps = [{"tuple": [SCRIPT, {"ref": 0}]}, {"tuple": [f"{SCRIPT}2", {"ref": 1}]}]
    forge(
        path, model(obj("sk_asd.features.TimePooling"), obj(KNN), obj(PIPELINE, {"steps": steps}))
    )


@forgery
def output_configuration(path, marker):
    """Containers of another library as output."""
    config = mapping(transform="polars", predict=f"{marker}")
    forge(path, model(obj("sk_asd.features.TimePooling", {}, {"_sklearn_output_config": config})))


@forgery
def frozen_anything(path, marker):
    """A frozen path."""
    frozen = obj("sklearn.frozen.FrozenEstimator", {"estimator": {"path": str(marker)}})
    forge(path, model(frozen, obj("sklearn.frozen.FrozenEstimator", {"estimator": {"ref": 0}})))


@forgery
def pooling_by_name(path, marker):
    """The name of any function of NumPy as a statistic."""
    pooling = obj(
        "sk_asd.features.TimePooling",
        {"statistics": ["busday_count", "save", "load", "fromfile", "count_nonzero"], "r": 1.0},
        {"n_features_in_": 8, "_bin": None},
    )
    forge(path, model(pooling))


# Places on the machine


@forgery
def pipeline_memory(path, marker):
    """The cache of a Pipeline, as a parameter."""
    steps = [{"tuple": [str(i), {"ref": i}]} for i in range(2)]
    pipeline = obj(PIPELINE, {"steps": steps, "memory": str(marker)})
    forge(path, model(obj("sk_asd.features.TimePooling"), obj(KNN), pipeline))


@forgery
def cache_dir(path, marker):
    """The cache of an extractor, as a parameter."""
    forge(path, model(obj(LOGMEL, {"n_fft": 512, "cache_dir": str(marker)})))


@forgery
def checkpoint(path, marker):
    """The checkpoint of a pre-training, as a parameter."""
    forge(
        path, model(obj("sk_asd.embedders.Wav2VecPretrainer", {**TINY, "checkpoint": str(marker)}))
    )


@forgery
def cache_dir_in_a_grid(path, marker):
    """The cache of an extractor, as a value that a search sets."""
    steps = [{"tuple": [f"s{i}", {"ref": i}]} for i in range(3)]
    extractor = obj(LOGMEL, {"n_fft": 512, "n_mels": 8})
    pipeline = obj(PIPELINE, {"steps": steps})
    grid = mapping(s0__cache_dir=[str(marker)])
    params = {"estimator": {"ref": 3}, "param_grid": grid, "cv": 2, "error_score": "raise"}
    params["scoring"] = {"name": "sk_asd.metrics.dcase_scorer"}
    pooling = obj("sk_asd.features.TimePooling")
    forge(path, model(extractor, pooling, obj(KNN), pipeline, obj(SEARCH, params)))


@forgery
def checkpoint_in_a_random_search(path, marker):
    """The checkpoint of a pre-training, as a value that a random search sets."""
    os.makedirs(marker + ".bait", exist_ok=True)
    pretrainer = obj("sk_asd.embedders.Wav2VecPretrainer", TINY)
    steps = [
        {"tuple": ["p", {"ref": 0}]},
        {"tuple": ["t", {"ref": 1}]},
        {"tuple": ["k", {"ref": 2}]},
    ]
    params = {
        "estimator": {"ref": 3},
        "param_distributions": mapping(p__checkpoint=[os.path.join(marker + ".bait", "w.pt")]),
        "n_iter": 1,
        "cv": 2,
        "error_score": "raise",
        "scoring": {"name": "sk_asd.metrics.dcase_scorer"},
    }
    search = obj("sklearn.model_selection.RandomizedSearchCV", params)
    pooling = obj("sk_asd.features.TimePooling")
    forge(path, model(pretrainer, pooling, obj(KNN), obj(PIPELINE, {"steps": steps}), search))


@forgery
def wav2vec_checkpoint(path, marker):
    """A checkpoint of fairseq anywhere, which the next fit reads."""
    with open(marker + ".pt", "wb") as file:
        file.write(b"\x80\x02c__builtin__\nexec\nq\x00.")
    forge(path, model(obj("sk_asd.features.Wav2Vec", {"model": marker + ".pt"})))


@forgery
def wav2vec_safetensors(path, marker):
    """A file of weights anywhere, which the next fit reads."""
    with open(marker + ".safetensors", "wb") as file:
        file.write(b"\x02\0\0\0\0\0\0\0{}")
    name = {"path": marker + ".safetensors"}
    forge(path, model(obj("sk_asd.features.Wav2Vec", {"model": name})))


@forgery
def wav2vec_folder(path, marker):
    """A folder of transformers anywhere, which the next fit reads."""
    os.makedirs(marker + ".hf", exist_ok=True)
    with open(os.path.join(marker + ".hf", "config.json"), "w") as file:
        json.dump({"model_type": "wav2vec2", "auto_map": {"AutoModel": "evil.Evil"}}, file)
    forge(path, model(obj("sk_asd.features.Wav2Vec", {"model": marker + ".hf"})))


# Memory that is not the file's


@forgery
def random_state_beyond_its_keys(path, marker):
    """A place in the keys of a random state that is not there."""
    random = {"random_state": ["keys", 10**9, 0, 0.0]}
    forge(path, model(obj(EMBEDDER, {"random_state": random})), {"keys": np.zeros(624, np.uint32)})


# Memory


@forgery
def labelled_from_a_number(path, marker):
    """One number, brought to the lengths of all coordinates."""
    coords = [[name, [name], {"array": name}] for name in "ab"]
    root = {"labelled": [0, ["a", "b"], coords, None, mapping()]}
    arrays = {name: np.zeros(20_000, np.uint8) for name in "ab"}
    forge(path, model(obj(KNN, {"metric": root})), arrays)


@forgery
def table_from_numbers(path, marker):
    """Numbers in the place of columns, brought to the length of the index."""
    table = {"table": [list(range(2000)), {"array": "index"}, [0] * 2000]}
    forge(path, model(obj(KNN, {"metric": table})), {"index": np.zeros(200_000, np.uint8)})


@forgery
def room_from_negative_columns(path, marker):
    """Negative numbers as columns, which make room: afterwards nothing is too large."""
    table = {"table": [["a"], {"array": "i"}, [-(10**15)]]}
    large = {"items": ["U500000000", [1], ["a"]]}
    forge(path, model(obj(KNN, {"metric": [table, large, large]})), {"i": np.zeros(1, np.uint8)})


@forgery
def room_from_nan(path, marker):
    """No number as a column: afterwards nothing is too large."""
    table = {"table": [["a"], {"array": "i"}, [float("nan")]]}
    large = {"items": ["U500000000", [1], ["a"]]}
    forge(path, model(obj(KNN, {"metric": [table, large, large]})), {"i": np.zeros(1, np.uint8)})


@forgery
def texts_of_any_width(path, marker):
    """Texts of the width 0, which NumPy takes for that of the longest."""
    items = ["x" * 50_000] + [""] * 20_000
    forge(path, model(obj(KNN, {"metric": {"items": ["U0", [len(items)], items]}})))


@forgery
def texts_of_negative_width(path, marker):
    """Texts of a width below 0, which make room."""
    forge(path, model(obj(KNN, {"metric": {"items": ["U-9", [1], ["a"]]}})))


@forgery
def texts_of_huge_width(path, marker):
    """Few texts of a huge width."""
    forge(path, model(obj(KNN, {"metric": {"items": ["U500000000", [1], ["a"]]}})))


@forgery
def objects_of_endless_shape(path, marker):
    """An array of nothing with an endless shape."""
    root = {"items": ["object", [0, 10**18, 10**18], []]}
    forge(path, model(obj(KNN, {"metric": root})))


@forgery
def tensors_that_are_copies(path, marker):
    """One array, transposed and copied very many times."""
    nodes = [{"tensor": {"transposed": "x"}}] * 4000
    forge(path, model(obj(KNN, {"metric": nodes})), {"x": np.zeros((500, 500), np.uint8)})


@forgery
def tensor_of_lists(path, marker):
    """A tensor from lists of one array, which are joined."""
    nodes = {"tensor": [{"array": "x"}] * 20_000}
    forge(path, model(obj(KNN, {"metric": nodes})), {"x": np.zeros(100_000, np.uint8)})


@forgery
def random_states_without_end(path, marker):
    """Very many random states of one array."""
    nodes = [{"random_state": ["k", 0, 0, 0.0]}] * 25_000
    forge(path, model(obj(KNN, {"metric": nodes})), {"k": np.zeros(624, np.uint32)})


@forgery
def neighbours_of_all(path, marker):
    """Each neighbour of each point, computed while the file is loaded."""
    params = {"n_neighbors": 6999, "n_jobs": None}
    forge(
        path,
        model(obj(LOF, params, {"_fit_X": {"array": "x"}})),
        {"x": np.arange(7000, dtype=np.uint16)[:, None]},
    )


@forgery
def neighbours_by_brute_force(path, marker):
    """Distances of all to all by a slow metric, computed while the file is loaded."""
    params = {"algorithm": "brute", "metric": "canberra", "n_jobs": None}
    x = np.random.default_rng(0).integers(0, 255, (90_000, 10), dtype=np.uint8)
    forge(path, model(obj(LOF, params, {"_fit_X": {"array": "x"}})), {"x": x})


@forgery
def neighbours_many_times(path, marker):
    """The same neighbours, built again and again."""
    lof = obj(LOF, {"n_jobs": None}, {"_fit_X": {"array": "x"}})
    forge(
        path, model(*[lof] * 2000), {"x": np.random.default_rng(0).random((2000, 5)).astype("f4")}
    )


@forgery
def neighbours_of_neighbours(path, marker):
    """Neighbours in the place of training data."""
    first = obj(NEIGHBORS, {"n_jobs": None}, {"_fit_X": {"array": "x"}})
    second = obj(NEIGHBORS, {"n_jobs": None}, {"_fit_X": {"ref": 0}})
    forge(path, model(first, second), {"x": np.eye(9)})


@forgery
def neighbours_with_workers(path, marker):
    """Very many workers of a search, started when clips are scored."""
    params = {"n_jobs": 300, "novelty": True, "algorithm": "kd_tree"}
    forge(
        path,
        model(obj(LOF, params, {"_fit_X": {"array": "x"}})),
        {"x": np.random.default_rng(0).random((40, 3))},
    )


# Networks


@forgery
def network_of_endless_depth(path, marker):
    """Layers without end, listed before the first is made."""
    sizes = {"n_inputs": 8, "latent_dim": 1, "width": 2, "depth": 150_000_000}
    forge(path, model(network(AUTOENCODER, **sizes)))


@forgery
def trees_of_small_numbers(path, marker):
    """Search trees of small numbers with a leaf a point, which take a hundred times as much."""
    nodes = [{"tree": ["KDTree", {"array": "x"}, 1, "EuclideanDistance64"]}] * 64
    x = np.random.default_rng(0).integers(0, 255, (300_000, 1), dtype=np.uint8)
    forge(path, model(obj(KNN, {"metric": nodes})), {"x": x})


@forgery
def texts_of_another_library(path, marker):
    """Texts of a type that would be another library's."""
    forge(path, model(obj(KNN, {"metric": {"strings": ["string[pyarrow]", ["a"]]}})))


@forgery
def network_of_endless_width(path, marker):
    """Layers of a huge width."""
    sizes = {"n_inputs": 8, "latent_dim": 1, "width": 1 << 20, "depth": 2}
    forge(path, model(network(AUTOENCODER, **sizes)))


@forgery
def network_of_many_groups(path, marker):
    """A flow of very many groups."""
    arrays = {"m": np.zeros(4000, np.float32), "s": np.ones(4000, np.float32)}
    flow = mapping(n_groups=4000, transforms=10**9, hidden_features=[1])
    moments = [{"array": "m"}, {"array": "s"}]
    sizes = {"moments": moments, "alpha": None, "n_context": 0, "flow": flow}
    forge(path, model(network(FLOW, **sizes)), arrays)


@forgery
def network_of_large_masks(path, marker):
    """A flow whose masks have the square of its features."""
    n = 100_000
    arrays = {"m": np.random.default_rng(0).random((2, n)).astype("f4")}
    flow = mapping(n_groups=1, transforms=1, flow="gaussian")
    moments = [{"array": "m"}, {"array": "m"}]
    sizes = {"moments": moments, "alpha": None, "n_context": 0, "flow": flow}
    forge(path, model(network(FLOW, **sizes)), arrays)


def backbone(name, **params):
    """An embedder whose backbone is made while it is loaded, and tried with a window."""
    sizes = {
        "size": [64, 64],
        "backbone": name if isinstance(name, str) else {"name": name[0]},
        "params": mapping(**params),
        "statistics": None,
        "heads": [2],
        "head_weights": [1.0],
        "loss": mapping(loss="softmax", margin=0.5, scale=1.0, n_subclusters=1),
        "width": None,
    }
    return network(EMBEDDER, **sizes)


@forgery
def network_repeated(path, marker):
    """Blocks without end."""
    forge(path, model(backbone("mobilefacenet", setting=[[2, 64, 10**12, 1]], embedding_dim=8)))


@forgery
def network_that_is_an_optimizer(path, marker):
    """An optimizer as backbone."""
    forge(path, model(backbone(["torch.optim.LBFGS"], params=[], max_iter=10**12)))


@forgery
def network_from_large_numbers(path, marker):
    """Strides whose product has very many digits."""
    layers = [[1, int("9" * 4000)]] * 200
    params = {"channels": 1, "encoder": layers, "aggregator": [1]}
    forge(path, model(backbone(["sk_asd.networks.Wav2Vec1"], **params)))


@forgery
def network_of_very_many_layers(path, marker):
    """Layers without end, each listed in the file."""
    params = {"channels": 1, "encoder": [[1, 1]] * 50_000, "aggregator": [1]}
    forge(path, model(backbone(["sk_asd.networks.Wav2Vec1"], **params)))


@forgery
def network_tried_with_long_windows(path, marker):
    """A window without end to measure the width."""
    tree = model(backbone("cnn6", embedding_dim=8))
    tree["objects"][0]["state"]["_architecture"]["dict"][0][1] = [64, 10**9]
    forge(path, tree)


@forgery
def network_tried_again_and_again(path, marker):
    """A window that is too short, and one that is long enough is looked for."""
    tree = model(backbone("mobilefacenet", input_size=[64, 100_000], embedding_dim=8, width=0.1))
    forge(path, tree)


@forgery
def network_of_many_heads(path, marker):
    """Heads of very many classes."""
    tree = model(backbone("cnn6", embedding_dim=8, width=0.1))
    tree["objects"][0]["state"]["_architecture"]["dict"][4][1] = [10**10] * 3
    forge(path, tree)


@forgery
def network_of_wav2vec(path, marker):
    """A wav2vec of a huge width."""
    config = mapping(channels=10**6, encoder=[[10, 5]], aggregator=[2])
    state = mapping(config=config, features="context", sr=16000, weights=mapping())
    forge(path, model(obj("sk_asd.features.Wav2Vec", {}, {"network_": state, "n_samples_": 16000})))


@forgery
def callbacks_of_any_kind(path, marker):
    """Classes that may be named, as callbacks and as their parameters."""
    params = {
        "callbacks": [{"tuple": ["a", {"name": "torch.optim.SGD"}]}],
        "callbacks__print_log__sink": {"name": "torch.optim.SGD"},
        "callbacks__b": {"name": "sk_asd.networks.AutoEncoder"},
        "iterator_train__collate_fn": {"name": "sk_asd.metrics.dcase_score"},
        "iterator_train__worker_init_fn": {"name": "sk_asd.metrics.dcase_score"},
        "max_epochs": 1,
        "n_frames": 8,
        "backbone": "cnn6",
    }
    forge(path, model(obj(EMBEDDER, params)))


@forgery
def device_of_any_kind(path, marker):
    """Devices that are not there."""
    devices = ["meta", "mps", "xla", "privateuseone", "cuda:99", "vulkan:7", "hpu", "maia"]
    forge(path, model(obj(EMBEDDER, {"device": {"device": "meta"}, "target": devices})))


@forgery
def device_by_number(path, marker):
    """A device that is a huge number."""
    forge(path, model(obj(EMBEDDER, {"device": {"device": 10**30}})))


# Descriptions


@forgery
def deep_lists(path, marker):
    """Lists in lists, deeper than the stack."""
    forge(path, b'{"objects":[],"places":{},"root":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@forgery
def deep_values(path, marker):
    """Values in values, as deep as the stack allows."""
    text = b'{"tuple":[' * 300 + b"1" + b"]}" * 300
    forge(path, b'{"objects":[],"places":{},"root":' + text + b"}")


@forgery
def wide_lists(path, marker):
    """Very many empty lists."""
    forge(path, b'{"objects":[],"places":{},"root":[' + b"[]," * 300_000 + b"0]}")


@forgery
def duplicate_keys(path, marker):
    """A key twice: one for each reader."""
    forge(
        path,
        b'{"objects":[{"class":"os.system","class":"'
        + KNN.encode()
        + b'","params":{},"state":{}}],"root":{"ref":0},"root":{"ref":0}}',
    )


@forgery
def odd_numbers(path, marker):
    """Numbers that are none, or without end."""
    forge(path, b'{"objects":[],"root":[NaN,Infinity,-Infinity,1e999999999,-0,1E-99999]}')


@forgery
def long_number(path, marker):
    """A number of very many digits."""
    forge(path, b'{"objects":[],"root":' + b"9" * 900_000 + b"}")


@forgery
def description_is_a_list(path, marker):
    """A description that is no dict."""
    forge(path, b"[1, 2]")


@forgery
def description_in_utf16(path, marker):
    """A description in another encoding."""
    forge(path, json.dumps(model(obj(KNN))).encode("utf-16"))


@forgery
def description_of_floats(path, marker):
    """A description that is an array of numbers."""
    arrays = {"estimator.json": np.zeros((3, 0, 4))}
    metadata = {"sk_asd": json.dumps(header_of(arrays))}
    with open(path, "wb") as file:
        file.write(safetensors.numpy.save(arrays, metadata))


@forgery
def description_without_objects(path, marker):
    """A description without anything."""
    forge(path, b"{}")


@forgery
def reference_backwards(path, marker):
    """References before the first and after the last object."""
    forge(path, model(obj(KNN), root=[{"ref": -1}, {"ref": True}, {"ref": 0.5}, {"ref": 10**30}]))


@forgery
def odd_names_in_the_refusal(path, marker):
    """Control characters in a name that the message repeats: they would rule the terminal."""
    forge(path, model(obj("\x1b]0;owned\x07\x1b[2J\r\nOSError: all is well\u202e.Evil")))


@forgery
def odd_versions(path, marker):
    """Control characters in a version that the message repeats."""
    forge(
        path, model(obj(KNN)), versions={"numpy": "\x1b[2J\x1b]8;;http://x\x07", "torch": "\ud800"}
    )


@forgery
def odd_places(path, marker):
    """Places that are control characters, or no text."""
    tree = model(obj("a.B"))
    tree["places"] = {"a.B": "\x1b[31m" + "x" * 100_000}
    forge(path, tree)


@forgery
def lone_surrogates(path, marker):
    """Half a character in a name that the message repeats."""
    forge(path, model(obj("\ud800.\udfff")))


@forgery
def long_names_in_the_refusal(path, marker):
    """Very many and very long names, which the message repeats."""
    forge(path, model(*[obj(f"a.b{i}" * 20) for i in range(5000)]))


# Headers and files


@forgery
def versions_as_pairs(path, marker):
    """Versions as a list of pairs."""
    forge(path, model(obj(KNN)), versions=[["numpy", "1"]])


@forgery
def versions_as_pairs_of_another_format(path, marker):
    """The same with another format."""
    forge(path, model(obj(KNN)), versions=[["sk_asd", "1"]], format=1)


@forgery
def format_is_a_dict(path, marker):
    """A format that is no number."""
    forge(path, model(obj(KNN)), format={"a": "\x1b[2J" * 1000})


@forgery
def header_without_digest(path, marker):
    """No digest."""
    forge(path, model(obj(KNN)), sha256=None)


@forgery
def header_of_deep_lists(path, marker):
    """A header deeper than the stack."""
    forge_raw(path, b"[" * 500_000)


@forgery
def header_of_a_huge_length(path, marker):
    """A header longer than the file."""
    with open(path, "wb") as file:
        file.write((2**63 - 1).to_bytes(8, "little") + b"{}" * 1000)


@forgery
def header_twice(path, marker):
    """Metadata twice: one for each reader."""
    own = json.dumps({"sk_asd": json.dumps(header_of({}))}).encode()
    forge_raw(
        path,
        b'{"__metadata__":' + own + b',"__metadata__":{"sk_asd":"{}"},"__metadata__":' + own + b"}",
    )


@forgery
def overlapping_arrays(path, marker):
    """Two arrays at one place."""
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    forge_raw(path, {"estimator.json": entry, "b": entry}, b"null")


@forgery
def arrays_with_holes(path, marker):
    """Bytes between arrays."""
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [100, 104]}
    forge_raw(path, {"estimator.json": entry}, bytes(200))


@forgery
def arrays_of_negative_shape(path, marker):
    """Shapes below 0, and such whose product is too large for a number."""
    entries = {
        "a": {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]},
        "b": {"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 0]},
    }
    forge_raw(path, entries, bytes(4))


@forgery
def arrays_of_no_size(path, marker):
    """Arrays of shape (0, 2 ** 60), which take no bytes."""
    entry = {"dtype": "U8", "shape": [0, 2**60], "data_offsets": [0, 0]}
    forge_raw(path, {"estimator.json": entry, "b": entry})


@forgery
def arrays_of_odd_types(path, marker):
    """Types that NumPy does not have."""
    entries = {
        name: {"dtype": name, "shape": [1], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate(["BF16", "F8_E4M3", "C64", "O", "V8"])
    }
    forge_raw(path, entries, bytes(40))


@forgery
def arrays_of_bfloat16(path, marker):
    """A type that needs another library, at its right size."""
    entries = {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    forge_raw(path, entries, bytes(2))


@forgery
def names_that_are_no_text(path, marker):
    """Names that are no UTF-8, in the header of the arrays."""
    forge_raw(path, b'{"\xff\xfe":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')


@forgery
def file_is_a_folder(path, marker):
    """A folder under the name."""
    os.makedirs(path, exist_ok=True)


@forgery
def file_is_a_link_to_zeros(path, marker):
    """A link to a device without end."""
    os.symlink("/dev/zero", path)


@forgery
def file_is_a_pipe(path, marker):
    """A pipe that nobody writes to."""
    os.mkfifo(path)


@forgery
def file_is_sparse(path, marker):
    """A file that claims 100 GB and takes no place."""
    forge(path, model(obj(KNN)))
    os.truncate(path, 100 << 30)


@forgery
def file_is_a_pickle(path, marker):
    """A pickle under the name."""
    with open(path, "wb") as file:
        file.write(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")


@forgery
def window_by_name(path, marker):
    """Windows with odd names."""
    forge(
        path,
        model(obj(LOGMEL, {"window": {"tuple": ["general_cosine", [0.5] * 10]}, "n_fft": 512})),
    )


@forgery
def scoring_by_name(path, marker):
    """A search whose scorer is a class that may be named."""
    params = {
        "estimator": {"ref": 0},
        "param_grid": mapping(n_neighbors=[1, 2]),
        "scoring": {"name": "torch.optim.SGD"},
        "refit": {"name": "sk_asd.metrics.dcase_score"},
        "cv": 2,
    }
    forge(path, model(obj(KNN), obj(SEARCH, params, {"best_estimator_": {"ref": 0}})))


@forgery
def path_of_zeros(path, marker):
    """A path with a zero, and one on another machine."""
    forge(path, model(obj("sk_asd.features.Wav2Vec", {"model": {"path": "//host/share/\0x.pt"}})))


@forgery
def slices_and_scalars(path, marker):
    """Slices of texts, scalars of types that are none."""
    root = [{"scalar": ["object", 1]}, {"scalar": ["V1000000000", 1]}, {"slice": [["a"], 1, 2]}]
    forge(path, model(obj(KNN, {"metric": root})))
