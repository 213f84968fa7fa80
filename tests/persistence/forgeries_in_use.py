"""Further forged model files, for the format without skops; in the style of the first ones.

`FORGERIES` has a function per forgery, by name. Each is called with the path of the file to write
and with `marker`, a path that the payload tries to create, to write or to read.
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


def forge(path, tree, arrays=None, **header):
    """Write a file whose digest is right; `tree` is a dict, or the JSON as bytes."""
    text = tree if isinstance(tree, bytes) else json.dumps(tree, separators=(",", ":")).encode()
    arrays = {"estimator.json": np.frombuffer(text, np.uint8), **(arrays or {})}
    own = {"format": FORMAT, "versions": versions(), "estimator": {}, "sha256": _digest(arrays)}
    with open(path, "wb") as file:
        file.write(safetensors.numpy.save(arrays, {"sk_asd": json.dumps({**own, **header})}))


def obj(name, params=None, state=None):
    """Entry of an object."""
    return {"class": name, "params": params or {}, "state": state or {}}


def model(*objects, root=None):
    """Description of a file whose root is the last object."""
    root = {"ref": len(objects) - 1} if root is None else root
    return {"root": root, "objects": list(objects), "places": {}}


def mapping(pairs=None, **more):
    """A dict, as the file has it."""
    return {"dict": [[key, value] for key, value in {**(pairs or {}), **more}.items()]}


def array(name):
    """An array by name."""
    return {"array": name}


def network(name, **architecture):
    """An estimator whose network is to be built from these sizes."""
    net = mapping(weights=[mapping(), mapping()], history=[])
    return obj(name, state={"net_": net, "_architecture": mapping(**architecture)})


def backbone(name, size=(64, 64), heads=(2,), **params):
    """An embedder whose backbone is made and tried with a window while it is loaded."""
    return network(
        EMBEDDER,
        size=list(size),
        backbone=name if isinstance(name, str) else {"name": name[0]},
        params=mapping(**params),
        statistics=None,
        heads=list(heads),
        head_weights=[1.0],
        loss=mapping(loss="softmax", margin=0.5, scale=1.0, n_subclusters=1),
        width=None,
    )


KNN = "sk_asd.detectors.KNNDetector"
LOFD = "sk_asd.detectors.LOFDetector"
LOGMEL = "sk_asd.features.LogMel"
STFT = "sk_asd.features.STFT"
WAV2VEC = "sk_asd.features.Wav2Vec"
EMBEDDER = "sk_asd.embedders.SectionEmbedder"
AUTOENCODER = "sk_asd.detectors.AutoEncoderDetector"
FLOW = "sk_asd.detectors.WSPFlowDetector"
ODD = "skorch.callbacks.EpochTimer"  # where an estimator is expected
LOF = "sklearn.neighbors.LocalOutlierFactor"
NEIGHBORS = "sklearn.neighbors.NearestNeighbors"
KMEANS = "sklearn.cluster.KMeans"
PIPELINE = "sklearn.pipeline.Pipeline"
UNION = "sklearn.pipeline.FeatureUnion"
FROZEN = "sklearn.frozen.FrozenEstimator"
SEARCH = "sklearn.model_selection.GridSearchCV"
RANDOM_SEARCH = "sklearn.model_selection.RandomizedSearchCV"
SEARCH_PARAMS = {
    "n_neighbors": 2,
    "algorithm": "auto",
    "leaf_size": 30,
    "metric": "euclidean",
    "p": 2,
    "metric_params": None,
}
RNG = np.random.default_rng(0)


# 1. Reads beyond memory in what scikit-learn and SciPy compute in C


def kmeans(path, centres, **state):
    """A KMeans with these centres."""
    state = {"cluster_centers_": array("c"), "_n_threads": 1, "n_features_in_": 3, **state}
    forge(path, model(obj(KMEANS, {}, state)), {"c": centres})


@forgery
def centres_wider_than_clips(path, marker):
    """Centres of a million features: clips of three are read with their stride."""
    kmeans(path, np.zeros((1, 1_000_000)))


@forgery
def centres_without_width(path, marker):
    """Ten million centres without a feature, in no bytes."""
    kmeans(path, np.zeros((10_000_000, 0)))


@forgery
def centres_of_objects(path, marker):
    """Centres that are objects."""
    state = {
        "cluster_centers_": {"items": ["object", [2, 3], [1, None, "a", {"ref": 0}, 2, 3]]},
        "_n_threads": 1,
    }
    forge(path, model(obj(KNN), obj(KMEANS, {}, state)))


@forgery
def threads_below_zero(path, marker):
    """A negative number of threads, which OpenMP takes for very many and ends the process."""
    kmeans(path, np.zeros((8, 3)), _n_threads=-5)


@forgery
def threads_without_end(path, marker):
    """As many threads as an int has."""
    kmeans(path, np.zeros((8, 3)), _n_threads=2**31 - 1)


def covariance(path, name, **more):
    """A covariance of 16000 features whose precision is a single number."""
    state = {"location_": array("l"), "precision_": array("p"), "n_features_in_": 16000, **more}
    arrays = {"l": np.zeros(16000), "p": np.zeros((1, 1)), "o": np.zeros(1)}
    forge(path, model(obj(name, {}, state)), arrays)


@forgery
def precision_of_one_number(path, marker):
    """An EllipticEnvelope whose precision ends after one number."""
    covariance(path, "sklearn.covariance.EllipticEnvelope", offset_=0.0)


@forgery
def precision_of_one_number_robust(path, marker):
    """The same as a step of a Pipeline's end, with a MinCovDet frozen."""
    state = {"location_": array("l"), "precision_": array("p"), "n_features_in_": 16000}
    tree = model(
        obj("sklearn.covariance.EllipticEnvelope", {}, {**state, "offset_": 0.0}),
        obj(FROZEN, {"estimator": {"ref": 0}}),
        obj(PIPELINE, {"steps": [{"tuple": ["e", {"ref": 1}]}]}),
    )
    forge(path, tree, {"l": np.zeros(16000), "p": np.zeros((0, 0))})


@forgery
def neighbours_by_a_small_matrix(path, marker):
    """A search by Mahalanobis distance whose inverse covariance is a single number."""
    params = {
        **SEARCH_PARAMS,
        "metric": "mahalanobis",
        "algorithm": "brute",
        "metric_params": mapping(VI=array("v")),
    }
    arrays = {"x": RNG.random((4, 16000)).astype("f4"), "v": np.zeros((1, 1))}
    forge(path, model(obj(LOF, {**params, "novelty": True}, {"_fit_X": array("x")})), arrays)


@forgery
def neighbours_by_a_small_matrix_in_a_detector(path, marker):
    """The same within a KNNDetector, which scores with it."""
    params = {
        **SEARCH_PARAMS,
        "metric": "mahalanobis",
        "algorithm": "brute",
        "metric_params": mapping(VI=array("v")),
    }
    arrays = {"x": RNG.random((4, 16000)).astype("f4"), "v": np.zeros((1, 1)), "c": np.zeros(16000)}
    state = {
        "center_": array("c"),
        "neighbors_": {"ref": 0},
        "density_": None,
        "n_features_in_": 16000,
        "training_scores_": array("c"),
        "offset_": 0.0,
    }
    forge(path, model(obj(NEIGHBORS, params, {"_fit_X": array("x")}), obj(KNN, {}, state)), arrays)


@forgery
def neighbours_unfitted_by_a_small_matrix(path, marker):
    """The same, not fitted: the user's own fit reads beyond."""
    params = {
        **SEARCH_PARAMS,
        "n_neighbors": 2,
        "metric": "mahalanobis",
        "algorithm": "brute",
        "metric_params": mapping(VI=array("v")),
        "novelty": True,
    }
    forge(path, model(obj(LOF, params)), {"v": np.zeros((1, 1))})


@forgery
def neighbours_with_odd_state(path, marker):
    """Fitted numbers of a factor that point beyond its arrays."""
    params = {**SEARCH_PARAMS, "novelty": True, "algorithm": "kd_tree"}
    state = {
        "_fit_X": array("x"),
        "n_neighbors_": 10**9,
        "_lrd": array("e"),
        "_distances_fit_X_": array("e"),
        "offset_": array("e"),
    }
    forge(
        path,
        model(obj(LOF, params, state)),
        {"x": RNG.random((40, 3)), "e": np.zeros((10**9, 0))},
    )


@forgery
def regression_of_objects(path, marker):
    """Coefficients that are estimators, texts and huge numbers, started from again."""
    items = [{"ref": 0}, 10**400, "a", None, {"device": "cpu"}, 10**18]
    coef = {"items": ["object", [1, 6], items]}
    state = {"coef_": coef, "intercept_": coef, "classes_": coef, "n_features_in_": 6}
    forge(
        path,
        model(
            obj(KNN), obj("sklearn.linear_model.LogisticRegression", {"warm_start": True}, state)
        ),
    )


@forgery
def regression_warm_with_another_width(path, marker):
    """Coefficients of another width, from which saga goes on."""
    params = {"warm_start": True, "solver": "saga", "max_iter": 2}
    state = {
        "coef_": array("c"),
        "intercept_": array("i"),
        "classes_": array("i"),
        "n_features_in_": 3,
    }
    forge(
        path,
        model(obj("sklearn.linear_model.LogisticRegression", params, state)),
        {"c": np.zeros((1, 1)), "i": np.zeros(0)},
    )


@forgery
def quantiles_of_another_shape(path, marker):
    """Quantiles and references that do not fit each other."""
    state = {
        "quantiles_": array("q"),
        "references_": array("r"),
        "n_quantiles_": 10**12,
        "n_features_in_": 3,
    }
    forge(
        path,
        model(obj("sklearn.preprocessing.QuantileTransformer", {}, state)),
        {"q": np.zeros((1, 3)), "r": np.full(10**6, np.nan, "f2")},
    )


@forgery
def mixture_of_no_width(path, marker):
    """A mixture of a billion components without width, in no bytes."""
    state = {
        "means_": array("m"),
        "precisions_cholesky_": array("m"),
        "covariances_": array("m"),
        "weights_": array("m"),
        "n_features_in_": 3,
        "converged_": True,
    }
    params = {"covariance_type": "diag", "warm_start": True, "n_components": 10**9}
    forge(
        path,
        model(obj("sklearn.mixture.GaussianMixture", params, state)),
        {"m": np.zeros((10**9, 0))},
    )


@forgery
def weights_as_odd_indices(path, marker):
    """Groups of a flow whose indices are far beyond its bins."""
    from sk_asd.detectors import WSPFlowDetector
    from sk_asd.persistence import load, save

    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 8, 40)).astype("f4")
    detector = WSPFlowDetector(
        max_epochs=1, module__n_groups=2, module__transforms=1, module__hidden_features=(4,)
    )
    detector.fit(X)
    save(detector, path)
    assert load(path) is not None
    with open(path, "rb") as file:
        arrays = safetensors.numpy.load(file.read())
    text = arrays.pop("estimator.json")
    for name, values in arrays.items():
        if values.dtype == np.int64 and ("own" in name or "others" in name or "varying" in name):
            arrays[name] = np.full_like(values, 10**15)
    forge(path, text.tobytes(), arrays)


# 2. Places


def wav2vec_search(path, marker, values, cls=SEARCH, **more):
    """A search over the file of a Wav2Vec."""
    import torch

    torch.save({"model": {}, "args": None}, f"{marker}.pt")
    wave = obj(WAV2VEC, {"model": "small"})
    pipeline = obj(
        PIPELINE, {"steps": [{"tuple": ["w", {"ref": 0}]}, {"tuple": ["k", {"ref": 1}]}]}
    )
    key = "param_grid" if cls == SEARCH else "param_distributions"
    params = {"estimator": {"ref": 2}, key: mapping({"w__model": values}), "cv": 2, **more}
    params["error_score"] = 0.0
    forge(path, model(wave, obj(KNN), pipeline, obj(cls, params)))


@forgery
def model_in_an_array(path, marker):
    """A file of weights in the grid of a search, as an array of texts and not as a list."""
    wav2vec_search(path, marker, {"items": ["text", [1], [f"{marker}.pt"]]}, scoring="accuracy")


@forgery
def model_in_an_array_of_objects(path, marker):
    """The same, in a random search and as an array of paths."""
    values = {"items": ["object", [1], [{"path": f"{marker}.pt"}]]}
    wav2vec_search(path, marker, values, RANDOM_SEARCH, n_iter=1, scoring="accuracy")


@forgery
def model_in_a_masked_array(path, marker):
    """The same, as a masked array."""
    values = {"items": ["text", [1], [f"{marker}.pt"]]}
    values = {"masked": [values, {"items": ["text", [1], [""]]}]}
    wav2vec_search(path, marker, values, scoring="accuracy")


@forgery
def model_folder_in_an_array(path, marker):
    """A folder of transformers, the same way."""
    os.mkdir(marker)
    with open(os.path.join(marker, "config.json"), "w") as file:
        json.dump({"model_type": "wav2vec2", "auto_map": {"AutoModel": "evil.Evil"}}, file)
    with open(os.path.join(marker, "evil.py"), "w") as file:
        file.write(f"open({marker + '.ran'!r}, 'w')\n")
    wav2vec_search(path, marker, {"items": ["text", [1], [marker]]}, scoring="accuracy")


@forgery
def places_in_arrays(path, marker):
    """Folders for results, as arrays and with odd keys."""
    values = {"items": ["text", [1], [marker]]}
    grid = mapping({"cache_dir": values, "___cache_dir": values, "memory__": values})
    params = {"estimator": {"ref": 0}, "param_grid": grid, "cv": 2, "scoring": "accuracy"}
    forge(path, model(obj(LOGMEL, {"cache_dir": values}), obj(SEARCH, params)))


# 3. Markup and regular expressions in the page of an estimator


@forgery
def script_in_a_parameter_name(path, marker):
    """The name of a parameter ends the text of a script that shows it."""
    forge(path, model(obj(EMBEDDER, {"module__(');run()//": 1})))


@forgery
def script_in_a_deeper_parameter_name(path, marker):
    """The same, in a step of a Pipeline and in a training's parameters."""
    tree = model(
        obj(AUTOENCODER, {"callbacks__(');run()//": 1}),
        obj(PIPELINE, {"steps": [{"tuple": ["a", {"ref": 0}]}]}),
    )
    forge(path, tree)


@forgery
def regular_expression_as_a_parameter(path, marker):
    """The name of a parameter is a pattern that is searched for without end."""
    forge(path, model(obj(EMBEDDER, {"module__|(?:.|\\n|.)+\\0": 1})))


@forgery
def regular_expression_as_an_attribute(path, marker):
    """The name of a fitted attribute is such a pattern."""
    name = "(?:[^~]|[^!])+~!_"
    state = {name: 1, "scale_": array("x"), "n_features_in_": 3}
    forge(
        path,
        model(obj("sklearn.preprocessing.StandardScaler", {}, state)),
        {"x": np.ones(3)},
    )


@forgery
def markup_in_attribute_names(path, marker):
    """Markup in the names and values of fitted attributes and features."""
    script = "<img src=x onerror=run()>"
    names = {"items": ["object", [3], [script] * 3]}
    state = {
        f"{script}_": script,
        f"a\"'{script}_": [script],
        "feature_names_in_": names,
        "n_features_in_": 3,
        "scale_": array("x"),
        "mean_": array("x"),
    }
    forge(
        path,
        model(obj("sklearn.preprocessing.StandardScaler", {}, state)),
        {"x": np.ones(3)},
    )


# 4. Messages


@forgery
def class_is_a_number(path, marker):
    """A class that is a number: the sentence that refuses it cannot be made."""
    forge(path, model(obj(5)))


@forgery
def class_is_nothing(path, marker):
    """A class that is null."""
    forge(path, model(obj(None), obj("a.B")))


@forgery
def place_in_deep_lists(path, marker):
    """A place that is as deep as JSON allows and too deep to be shown."""
    text = json.dumps(model(obj("a.B")))
    deep = '"places":{"a.B":' + "[" * 900 + "]" * 900 + "}"
    forge(path, text.replace('"places": {}', deep).encode())


@forgery
def place_in_dicts(path, marker):
    """The same, with dicts."""
    text = json.dumps(model(obj("a.B")))
    deep = '"places":{"a.B":' + '{"a":' * 700 + "1" + "}" * 700 + "}"
    forge(path, text.replace('"places": {}', deep).encode())


@forgery
def names_in_versions(path, marker):
    """Control characters in the names of versions, and versions without end."""
    there = {"\x1b[2J": "1", "torch": "\u202e" * 10_000, "numpy": "1." * 10_000}
    forge(path, model(obj("a.B")), versions=there)


@forgery
def surrogates_everywhere(path, marker):
    """Halves of characters as parameters, keys, labels and dimensions."""
    half = "\ud800"
    labelled = {"labelled": [array("x"), [half], [[half, [half], array("x")]], half, mapping()]}
    params = {"metric": labelled, "aggregation": half}
    forge(path, model(obj(KNN, params)), {"x": np.zeros(2)})


# 5. Memory and time of loading


@forgery
def masked_again_and_again(path, marker):
    """One array under thousands of masks of a single number, each made as large as the array."""
    nodes = [{"masked": [array("x"), array("m")]}] * 8000
    arrays = {"x": np.zeros(500_000, np.uint8), "m": np.zeros(1, np.uint8)}
    forge(path, model(obj(KNN, {"metric": nodes})), arrays)


@forgery
def masked_by_numbers(path, marker):
    """Masks of numbers, each of which is converted."""
    nodes = [{"masked": [array("x"), array("x")]}] * 10_000
    forge(path, model(obj(KNN, {"metric": nodes})), {"x": np.zeros(250_000, np.int16)})


@forgery
def texts_of_numbers(path, marker):
    """Numbers as texts, of which each takes sixty bytes."""
    nodes = [{"strings": ["string", array("x")]}] * 200
    x = RNG.integers(0, 255, 900_000).astype(np.uint8)
    forge(path, model(obj(KNN, {"metric": nodes})), {"x": x})


@forgery
def folds_again_and_again(path, marker):
    """Splitters of one array of small numbers, which each converts to large ones."""
    splitter = obj("sklearn.model_selection.PredefinedSplit", {"test_fold": array("x")})
    forge(
        path,
        model(*[splitter] * 2000, obj(KNN)),
        {"x": np.zeros(500_000, np.int8)},
    )


@forgery
def coordinates_again_and_again(path, marker):
    """Labelled arrays whose index is converted every time."""
    node = {"labelled": [array("x"), ["a"], [["a", ["a"], array("h")]], None, mapping()]}
    forge(
        path,
        model(obj(KNN, {"metric": [node] * 2000})),
        {"x": np.zeros(300_000, np.uint8), "h": np.zeros(300_000, np.float16)},
    )


@forgery
def coordinates_without_end(path, marker):
    """Very many coordinates of one number."""
    coords = [[f"{i:x}", ["a"], array("x")] for i in range(35_000)]
    node = {"labelled": [array("x"), ["a"], coords, None, mapping()]}
    forge(path, model(obj(KNN, {"metric": node})), {"x": np.zeros(1)})


@forgery
def columns_without_end(path, marker):
    """A table of one row and very many columns."""
    n = 50_000
    node = {"table": [list(range(n)), array("x"), [array("x")] * n]}
    forge(path, model(obj(KNN, {"metric": node})), {"x": np.zeros(1)})


@forgery
def columns_of_text_without_end(path, marker):
    """The same with columns of text."""
    n = 17_000
    node = {
        "table": [
            list(range(n)),
            array("x"),
            [{"strings": ["str", {"items": ["object", [1], ["a"]]}]}] * n,
        ]
    }
    forge(path, model(obj(KNN, {"metric": node})), {"x": np.zeros(1)})


@forgery
def searches_without_end(path, marker):
    """Thousands of searches for neighbours, each fitted when it is loaded."""
    params = {**SEARCH_PARAMS, "algorithm": "brute"}
    forge(
        path,
        model(*[obj(NEIGHBORS, params, {"_fit_X": array("x")})] * 4800),
        {"x": RNG.random((8, 4))},
    )


@forgery
def scorers_without_end(path, marker):
    """Thousands of searches whose scorers are made when they are loaded."""
    from sklearn.metrics import get_scorer_names

    names = get_scorer_names()
    params = {"estimator": {"ref": 0}, "param_grid": mapping(), "scoring": names}
    search = obj(SEARCH, params, {"best_estimator_": {"ref": 0}})
    forge(path, model(obj("sklearn.linear_model.LogisticRegression"), *[search] * 700))


@forgery
def lists_without_end(path, marker):
    """A description of empty lists, each of which takes twenty times its text, twice."""
    root = b"[" + b"[]," * 20_000_000 + b"0]"
    forge(path, b'{"objects":[],"places":{},"root":' + root + b"}")


@forgery
def lists_in_the_header(path, marker):
    """The same in the header, which is read before all else."""
    forge(path, model(obj(KNN)), more=[[]] * 12_000_000)


@forgery
def network_paid_in_bytes(path, marker):
    """A network whose numbers take four bytes, allowed for by numbers that take one."""
    sizes = {"n_inputs": 10_000, "latent_dim": 1, "width": 10_000, "depth": 1}
    forge(path, model(network(AUTOENCODER, **sizes)), {"pad": np.zeros(11_000_000, np.uint8)})


@forgery
def head_paid_in_bytes(path, marker):
    """A head, whose weights are drawn once only."""
    tree = model(backbone("cnn6", embedding_dim=1024, heads=[600_000], width=0.1))
    pairs = tree["objects"][0]["state"]["_architecture"]["dict"]
    pairs[6][1] = mapping(loss="arcface", margin=0.5, scale=1.0, n_subclusters=1)
    pairs[7][1] = 1000
    forge(path, tree, {"pad": np.zeros(19_000_000, np.uint8)})


@forgery
def layers_paid_by_empty_arrays(path, marker):
    """Very many layers of a single number, allowed for by as many empty arrays."""
    sizes = {"n_inputs": 1, "latent_dim": 1, "width": 1, "depth": 400_000}
    arrays = {f"{i:x}": np.zeros(0, np.uint8) for i in range(13_000)}
    forge(path, model(network(AUTOENCODER, **sizes)), arrays)


@forgery
def convolution_of_a_large_window(path, marker):
    """A convolution without bias: its result has the square of what is thought."""
    tree = model(backbone("cnn6", (3000, 3000), embedding_dim=8, width=1.0))
    forge(path, tree, {"pad": np.zeros(1_040_000, np.uint8)})


@forgery
def convolution_of_wav2vec(path, marker):
    """A wav2vec of one channel with very long kernels."""
    config = mapping(channels=1, encoder=[[1 << 20, 1]], aggregator=[1 << 20] * 3)
    state = mapping(config=config, features="context", sr=16000, weights=mapping())
    forge(path, model(obj(WAV2VEC, {}, {"network_": state, "n_samples_": 16000})))


@forgery
def network_by_arrays(path, marker):
    """Sizes that are arrays, which are not looked at."""
    sizes = {"n_inputs": 1, "latent_dim": 1, "width": 1, "depth": array("n")}
    forge(path, model(network(AUTOENCODER, **sizes)), {"n": np.array(10**12)})


@forgery
def network_by_floats(path, marker):
    """Sizes that are no numbers, or without end."""
    tree = model(
        backbone("mobilefacenet", width=float("inf"), embedding_dim=8),
        backbone("cnn6", width=float("nan"), embedding_dim=1e308),
    )
    forge(path, tree)


@forgery
def flow_of_many_groups_and_large_masks(path, marker):
    """A flow whose context is all bins but one, for every bin."""
    arrays = {"m": RNG.random((1, 3000)).astype("f4"), "c": np.ones((1, 1, 3000), "f4")}
    flow = mapping(n_groups=3000, transforms=1, hidden_features=[1], context_features=1)
    moments = {"tuple": [{"tensor": array("m")}, {"tensor": array("c")}]}
    forge(path, model(network(FLOW, moments=moments, alpha=None, n_context=0, flow=flow)), arrays)


@forgery
def backbones_of_every_kind(path, marker):
    """Networks that were never meant as a backbone, tried with a window."""
    forge(path, model(backbone(["sk_asd.networks.GroupedFlow"], n_bins=64, n_groups=1 << 19)))


# 6. Objects within objects


@forgery
def twice_the_one_before(path, marker):
    """Unions of two parts that are the same: the page of the last has two to the thirtieth."""
    objects = [obj("sklearn.preprocessing.StandardScaler")]
    for i in range(30):
        steps = [{"tuple": ["a", {"ref": i}]}, {"tuple": ["b", {"ref": i}]}]
        objects.append(obj(UNION, {"transformer_list": steps}))
    forge(path, model(*objects))


@forgery
def chain_of_estimators(path, marker):
    """Searches within searches, deeper than the stack when they are thrown away."""
    objects = [obj(KNN)]
    for i in range(7000):
        objects.append(obj(SEARCH, {"estimator": {"ref": i}, "param_grid": mapping()}))
    forge(path, model(*objects))


@forgery
def chain_of_frozen(path, marker):
    """Frozen estimators within frozen ones, whose attributes are asked for when they are made."""
    objects = [obj(KNN)]
    for i in range(9000):
        objects.append(obj(FROZEN, {"estimator": {"ref": i}}))
    forge(path, model(*objects))


@forgery
def state_through_a_frozen(path, marker):
    """Fitted attributes for what a frozen estimator holds."""
    state = {"center_": array("x"), "offset_": "<b>", "estimator": 1, "n_features_in_": -1}
    forge(path, model(obj(KNN), obj(FROZEN, {"estimator": {"ref": 0}}, state)), {"x": np.zeros(3)})


@forgery
def random_numbers_of_zeros(path, marker):
    """A generator whose numbers are all zero: a normal one is drawn for ever."""
    params = {"n_components": 2, "random_state": {"random_state": ["k", 0, 0, 0.0]}}
    forge(
        path,
        model(obj("sklearn.decomposition.TruncatedSVD", params)),
        {"k": np.zeros(624, np.uint32)},
    )


@forgery
def training_with_odd_parameters(path, marker):
    """What training hands on: loaders, callbacks and optimizers with odd things."""
    params = {
        "n_frames": 8,
        "max_epochs": 1,
        "backbone": "cnn6",
        "module__width": 0.1,
        "module__embedding_dim": 8,
        "device": "cpu",
        "iterator_train__worker_init_fn": {"ref": 0},
        "iterator_train__multiprocessing_context": "fork",
        "iterator_train__num_workers": 1,
        "callbacks__print_log__sink": {"ref": 0},
        "callbacks__print_log": {"ref": 1},
        "callbacks__train_loss__scoring": {"name": "sk_asd.metrics.dcase_score"},
        "optimizer__param_groups": [
            {"tuple": ["*", mapping(optimizer={"name": "torch.optim.SGD"})]}
        ],
        "optimizer__optimizer": {"name": "torch.optim.LBFGS"},
        "callbacks": [{"ref": 1}, {"tuple": ["a", {"ref": 2}]}, {"ref": 0}],
    }
    stopping = obj(
        "skorch.callbacks.EarlyStopping",
        {"monitor": {"ref": 0}, "sink": {"ref": 0}, "patience": -1, "threshold": "a"},
    )
    clipping = obj(
        "skorch.callbacks.GradientNormClipping",
        {"gradient_clip_value": {"ref": 0}, "gradient_clip_norm_type": "inf"},
    )
    forge(path, model(obj(ODD), stopping, clipping, obj(EMBEDDER, params)))


@forgery
def steps_that_are_none(path, marker):
    """Steps that are numbers, texts, classes of splitters and modules."""
    steps = [
        {"tuple": ["a", {"ref": 0}]},
        {"tuple": ["b", {"ref": 1}]},
        {"tuple": ["c", 5]},
        {"tuple": [{"tuple": []}, "passthrough"]},
        [[]],
    ]
    forge(
        path,
        model(obj(ODD), obj("sklearn.model_selection.KFold"), obj(PIPELINE, {"steps": steps})),
    )


@forgery
def union_with_odd_weights(path, marker):
    """Weights of a union that are modules, and very many workers."""
    params = {
        "transformer_list": [{"tuple": ["a", {"ref": 1}]}],
        "transformer_weights": mapping(a={"ref": 0}),
        "n_jobs": "a",
    }
    forge(
        path,
        model(obj(ODD), obj("sklearn.preprocessing.Normalizer"), obj(UNION, params)),
    )


@forgery
def spectra_of_odd_shape(path, marker):
    """Windows, filters and numbers of frames that do not fit each other."""
    state = {
        "window_": array("w"),
        "mel_basis_": array("b"),
        "frequencies_": array("w"),
        "n_samples_": 16000,
        "n_frames_": 10**6,
        "n_features_in_": 16000,
        "peak_": 1.0,
        "quiet_": 0.0,
    }
    params = {"hop_length": 1, "n_fft": 1 << 40, "n_mels": 7, "center": True}
    arrays = {"w": np.ones(3, "f4"), "b": np.ones((400, 9000), "f4")[:, :2]}
    forge(path, model(obj(LOGMEL, params, state)), {k: v.copy() for k, v in arrays.items()})


@forgery
def spectra_without_hop(path, marker):
    """A step of zero or less from frame to frame, and a window of no samples."""
    state = {
        "window_": array("w"),
        "frequencies_": array("w"),
        "_bins": {"slice": [-(10**18), 10**18, None]},
        "n_samples_": 16000,
        "n_frames_": 3,
        "n_features_in_": 16000,
    }
    forge(
        path,
        model(obj(STFT, {"hop_length": -1, "power": 1e308}, state)),
        {"w": np.ones(1, "f4")},
    )


@forgery
def features_by_odd_attributes(path, marker):
    """A wrapper around things that transform nothing, with an index that is objects."""
    state = {"transformer_": {"ref": 0}, "_dim": {"ref": 0}, "_coord": {"slice": [0, 10**18, 0]}}
    tree = model(obj(ODD), obj("sk_asd.features.Labelled", {"transformer": {"ref": 0}}, state))
    forge(path, tree)


@forgery
def output_of_another_library(path, marker):
    """Results as another library's, and configurations that are none."""
    state = {
        "_sklearn_output_config": mapping(transform="polars", os="system"),
        "_bin": {"ref": 0},
    }
    forge(path, model(obj(KNN), obj("sk_asd.features.TimePooling", {}, state)))


@forgery
def folds_that_are_objects(path, marker):
    """Folds of a search as indices of any kind."""
    folds = [{"tuple": [{"slice": [0, 10**18, 1]}, array("i")]}]
    params = {
        "estimator": {"ref": 0},
        "param_grid": mapping(n_components=[1]),
        "cv": folds,
        "pre_dispatch": "9**9**9",
        "n_jobs": 1,
        "scoring": {"ref": 1},
        "refit": {"ref": 1},
    }
    state = {"best_estimator_": {"ref": 0}, "best_index_": 10**18, "multimetric_": True}
    forge(
        path,
        model(obj("sklearn.decomposition.PCA"), obj(ODD), obj(SEARCH, params, state)),
        {"i": np.array([10**15, -(10**15)])},
    )
