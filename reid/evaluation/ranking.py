"""Where the right images stand in a ranking, without sorting the gallery.

Everything here works on one query at a time: its distances to the whole gallery (a row [G]), its
matches (gallery images of its identity under other cameras) and its left-out images (of its
identity under its own camera), the latter two as ascending gallery indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Up to so many matches it is faster to count what is nearer than each than to sort the gallery.
COUNTED_MATCHES = 256


class SameIdentity:
    """Finds the gallery images that show a query's identity.

    Args:
        gallery_pids: [G] identities.
        gallery_cameras: [G] cameras.
    """

    def __init__(self, gallery_pids: np.ndarray, gallery_cameras: np.ndarray) -> None:
        self._cameras = gallery_cameras
        self._order = np.argsort(gallery_pids, kind="stable")
        self._sorted = gallery_pids[self._order]

    def __call__(self, pid: int, camera: int) -> tuple[np.ndarray, np.ndarray]:
        """Matches and left-out images of a query: ascending gallery indices."""
        start, stop = np.searchsorted(self._sorted, [pid, pid + 1])
        same = self._order[start:stop]
        own_camera = self._cameras[same] == camera
        return same[~own_camera], same[own_camera]


def match_ranks(row: np.ndarray, matches: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Ranks of the matches, from 1, ascending; ties rank in gallery order.

    What is left out takes no rank. Counting the images that come before a match costs one pass
    over the row for each match, which beats sorting the row: a query has a few dozen matches among
    ten thousands of images.
    """
    if len(matches) > COUNTED_MATCHES:
        position = np.empty(len(row), dtype=np.int64)
        position[np.argsort(row, kind="stable")] = np.arange(len(row))
        before = np.sort(position[matches])
        return before - np.searchsorted(np.sort(position[left_out]), before) + 1
    before = np.empty(len(matches), dtype=np.int64)
    for n, index in enumerate(matches):
        value = row[index]
        # Among equals, those earlier in the gallery come before.
        before[n] = np.count_nonzero(row[:index] <= value)
        before[n] += np.count_nonzero(row[index + 1 :] < value)
    if len(left_out):
        theirs, ours = row[left_out], row[matches][:, None]
        earlier = (theirs < ours) | ((theirs == ours) & (left_out < matches[:, None]))
        before -= np.count_nonzero(earlier, axis=1)
    return np.sort(before) + 1


def single_shot_cmc(
    row: np.ndarray,
    matches: np.ndarray,
    left_out: np.ndarray,
    identity: np.ndarray,
    images: np.ndarray,
    ranks: Sequence[int],
) -> np.ndarray:
    """Chance of a match within each of ``ranks`` when one image of every identity is drawn.

    torchreid's ``eval_cuhk03`` draws ten such galleries; this is what their mean tends to, ours:
    the drawn match has rank 1 + the number of other identities whose drawn image comes before it,
    a sum of independent coin tosses, whose distribution is convolved coin by coin.

    Args:
        row, matches, left_out: of one query, with at least one match.
        identity: [G] identities, numbered from 0.
        images: [I] images that each identity has in the gallery.
        ranks: from 1.
    """
    order = np.argsort(row, kind="stable")
    is_match = np.zeros(len(row), dtype=bool)
    is_match[matches] = True
    order = order[~np.isin(order, left_out)]
    section = np.cumsum(is_match[order]) - is_match[order]  # matches that come before each image
    before = np.zeros((len(matches) + 1, len(images)))
    np.add.at(before, (section, identity[order]), 1)
    before = np.cumsum(before, axis=0)[:-1]  # [M, I] images before each match
    before[:, identity[matches[0]]] = 0  # the query's own identity is drawn once: the match itself
    chance = before / images
    depth = max(ranks)
    # ahead[m, n]: chance that n identities come before match m; more than depth - 1 do not matter.
    ahead = np.zeros((len(matches), depth))
    ahead[:, 0] = 1.0
    for coin in chance.T[chance.any(0)]:
        coin = coin[:, None]
        tossed = ahead * (1.0 - coin)
        tossed[:, 1:] += ahead[:, :-1] * coin
        ahead = tossed
    return np.cumsum(ahead, axis=1).mean(0)[np.asarray(ranks) - 1]
