"""Where in time and frequency the score of pooled features comes from."""

import numpy as np


def parts_over_time(statistic, clip, r=1.0):
    """Take a statistic over time apart into what every frame adds to it.

    Parameters
    ----------
    statistic : {"mean", "std", "max", "gwrp"}
        As :class:`~sk_asd.features.TimePooling` knows them.
    clip : ndarray of shape (n_bins, n_frames)
        Features of a clip.
    r : float, default=1.0
        Decay of "gwrp".

    Returns
    -------
    parts : ndarray of shape (n_bins, n_frames)
        Their sum over frames is the statistic.
    weights : ndarray of shape (n_bins, n_frames)
        Share of every frame in an expected value; their sum over frames is 1.
    """
    clip = np.asarray(clip, dtype=float)
    n_frames = clip.shape[1]
    if statistic == "std":
        std = clip.std(axis=1, keepdims=True)
        squares = np.square(clip - clip.mean(axis=1, keepdims=True)) / n_frames
        parts = np.divide(squares, std, out=np.zeros_like(squares), where=std > 0)
        return parts, np.full(clip.shape, 1 / n_frames)
    weights = np.full(clip.shape, 1 / n_frames)
    if statistic != "mean":
        # features loads torch, which a report of scores alone does without.
        from sk_asd.features._pooling import _ranking_weights

        ranking = _ranking_weights(0.0 if statistic == "max" else r, n_frames)
        order = np.argsort(-clip, axis=1, kind="stable")
        np.put_along_axis(weights, order, np.broadcast_to(ranking, clip.shape), axis=1)
    return weights * clip, weights


def quadratic_form(detector, X):
    """Distance of clips as a product: of a gradient, and the deviation from what is expected.

    Parameters
    ----------
    detector : outlier detector
        Fitted.
    X : ndarray of shape (n_clips, n_features)
        Pooled features.

    Returns
    -------
    expected : ndarray of shape (n_clips, n_features)
        The point the distance is measured from: a mean, a component's mean, or the mean of the
        nearest training clips.
    gradient : ndarray of shape (n_clips, n_features)
        ``(gradient * (X - expected)).sum(axis=1)`` is the squared distance.
    None
        In place of both where the detector has no such form.
    """
    from sk_asd.detectors import GaussianMixtureDetector, KNNDetector, MahalanobisDetector

    if isinstance(detector, MahalanobisDetector):
        expected = np.broadcast_to(detector.location_, X.shape)
        return expected, (X - expected) @ detector.precision_
    if isinstance(detector, GaussianMixtureDetector):
        mixture = detector.mixture_
        component = mixture.predict(X - detector.center_)
        expected = detector.center_ + mixture.means_[component]
        deviation, precision = X - expected, mixture.precisions_
        if mixture.covariance_type == "tied":
            return expected, deviation @ precision
        if mixture.covariance_type == "full":
            return expected, np.einsum("nd,nde->ne", deviation, precision[component])
        return expected, deviation * precision[component].reshape(len(X), -1)
    if isinstance(detector, KNNDetector) and detector.density_neighbors is None:
        center, search = detector.center_, detector.neighbors_
        near = center + search._fit_X[search.kneighbors(X - center, return_distance=False)]
        if detector.metric == "euclidean":
            expected = near.mean(axis=1)
            return expected, X - expected
        if detector.metric == "cosine":
            # Twice the cosine distance is the squared distance of vectors of unit length.
            least = np.finfo(float).tiny
            length = np.maximum(np.linalg.norm(X, axis=1, keepdims=True), least)
            near = near / np.maximum(np.linalg.norm(near, axis=2, keepdims=True), least)
            expected = length * near.mean(axis=1)
            return expected, (X - expected) / length**2
    return None


def pooled_map(pooling, detector, features):
    """Shares of bins and frames in the squared distance of a detector on pooled features.

    With the deviation of the pooled features from what is expected, d, and a gradient g the squared
    distance is the sum of g * d, and each deviation a sum over frames.

    Parameters
    ----------
    pooling : TimePooling
        Fitted.
    detector : outlier detector
        Fitted to what it returns.
    features : ndarray of shape (n_clips, n_bins, n_frames)
        Features.

    Returns
    -------
    ndarray of shape (n_clips, n_bins, n_frames) or None
        The sum of a map is the squared distance; None where the detector has no such form.
    """
    form = quadratic_form(detector, np.asarray(pooling.transform(features), dtype=float))
    if form is None:
        return None
    n_clips, n_bins, _ = features.shape
    expected, gradient = (part.reshape(n_clips, -1, n_bins, 1) for part in form)
    maps = np.zeros(features.shape)
    for clip, e, g, out in zip(features, expected, gradient, maps):
        for i, statistic in enumerate(pooling.statistics):
            parts, weights = parts_over_time(statistic, clip, pooling.r)
            out += g[i] * (parts - e[i] * weights)
    return maps


def flow_map(detector, features, bins):
    """Spread the contributions of bins to a WSPFlowDetector's score over the frames.

    Where a bin is above what training clips have, its contribution goes to the frames that raise
    it, otherwise to those that lower it; a contribution that is not positive to all alike.

    Parameters
    ----------
    detector : WSPFlowDetector
        Fitted.
    features : ndarray of shape (n_clips, n_bins, n_frames)
        Features.
    bins : ndarray of shape (n_clips, n_bins)
        As its ``score_map`` gives them.

    Returns
    -------
    ndarray of shape (n_clips, n_bins, n_frames)
        The mean over a bin's frames is its contribution.
    """
    from sk_asd.detectors._wsp_net import STATISTICS

    names, module = STATISTICS[detector.pooling], detector.net_.module_
    factors = module._weights().detach().cpu().numpy()
    expected = module.mean.cpu().numpy()
    maps = np.empty(features.shape)
    for clip, contributions, out in zip(features, np.asarray(bins)[:, :, np.newaxis], maps):
        deviation = np.zeros(clip.shape)
        for name, factor, mean in zip(names, factors, expected):
            parts, weights = parts_over_time(name, clip, detector.r)
            deviation += factor * (parts - mean[:, np.newaxis] * weights)
        share = np.maximum(np.sign(deviation.sum(axis=1, keepdims=True)) * deviation, 0)
        total = share.sum(axis=1, keepdims=True)
        told = (total > 0) & (contributions > 0)
        share = np.divide(share, total, out=np.full(clip.shape, 1 / clip.shape[1]), where=told)
        out[:] = contributions * share * clip.shape[1]
    return maps
