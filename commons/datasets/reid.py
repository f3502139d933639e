"""The datasets of re-identification: people, and faces on pairs."""

from __future__ import annotations

from onebit.commons.datasets.dataset import Dataset, Printed

_MINI = "onebit.commons.mini.reid"


def _printed(group: str) -> tuple[Printed]:
    columns = {"map": "mAP", "rank1": "rank1"}
    return (Printed("dcp-nas", "12", group, columns, 120, (3, 256, 128), quantization=True),)


MARKET1501 = Dataset(
    name="market1501",
    title="Market-1501",
    task="reid",
    folders=(".",),
    required=tuple(
        f"market1501/Market-1501-v15.09.15/{part}" for part in ("bounding_box_train", "query", "bounding_box_test")
    ),
    how_to_get="Get Market-1501-v15.09.15 from its authors (Liang Zheng's page; free for research, not for "
    "commercial use); nothing is downloaded for you.",
    reader="onebit.reid.datasets:CheckedMarket1501",
    split="bounding_box_train -> query, bounding_box_test",
    protocol="market",
    printed=_printed("Market-1501"),
)
DUKEMTMCREID = Dataset(
    name="dukemtmcreid",
    title="DukeMTMC-reID",
    task="reid",
    folders=(".",),
    required=tuple(
        f"dukemtmc-reid/DukeMTMC-reID/{part}" for part in ("bounding_box_train", "query", "bounding_box_test")
    ),
    how_to_get="DukeMTMC was withdrawn by its authors over the privacy of the people filmed: this project never "
    "downloads or ships it and reads it only where you already keep it.",
    reader="onebit.reid.datasets:CheckedDukeMTMCreID",
    split="bounding_box_train -> query, bounding_box_test",
    protocol="market",
    printed=_printed("DukeMTMC-reID"),
)
CUHK03 = Dataset(
    name="cuhk03",
    title="CUHK03",
    task="reid",
    folders=(".",),
    required=(
        "cuhk03/cuhk03_release/cuhk-03.mat",
        "cuhk03/cuhk03_new_protocol_config_detected.mat",
        "cuhk03/cuhk03_new_protocol_config_labeled.mat",
    ),
    how_to_get="Ask the authors at the Chinese University of Hong Kong for cuhk-03.mat (academic use, by "
    "agreement), and get the two new-protocol split files (cuhk03_new_protocol_config_*.mat) of "
    "Zhong et al., CVPR 2017.",
    reader="onebit.reid.datasets:CheckedCUHK03",
    split="{protocol}, {boxes} boxes: train -> query, gallery",
    protocol="cuhk03",
    printed=_printed("CUHK03"),
)
MSMT17 = Dataset(
    name="msmt17",
    title="MSMT17",
    task="reid",
    folders=(".",),
    required=tuple(
        f"msmt17/MSMT17_V1/{part}"
        for part in ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt", "train", "test")
    ),
    how_to_get="Ask the authors at Peking University for MSMT17 (academic use, by a signed release agreement); "
    "the first version, MSMT17_V1, is read.",
    reader="onebit.reid.datasets:CheckedMSMT17",
    split="list_train -> list_query, list_gallery",
    protocol="market",
)

_ACCURACIES = {"accuracy_lfw": "LFW", "accuracy_cfp": "CFP-FP", "accuracy_agedb": "AgeDB-30"}
_RATES = {m.replace("accuracy", "tar") + "_far_1e-3": f"{title} TAR@1e-3" for m, title in _ACCURACIES.items()}
FACE = Dataset(
    name="face",
    title="Face verification",
    task="reid",
    folders=("face",),
    required=(
        "casia-webface",
        "lfw",
        "lfw/pairs.txt",
        "cfp-dataset",
        "cfp-dataset/Protocol/Pair_list_F.txt",
        "cfp-dataset/Protocol/Pair_list_P.txt",
        "cfp-dataset/Protocol/Split/FP",
        "agedb_30",
        "agedb_30/agedb_30_ann.txt",
    ),
    how_to_get="Training images in casia-webface/<identity>/ (CASIA-WebFace, by agreement with its authors; any "
    "identity folder may stand there), LFW with pairs.txt in lfw/ (University of Massachusetts), "
    "cfp-dataset/ as it is unpacked (cfpw.io), AgeDB-30 in agedb_30/ with its pairs as text in "
    "agedb_30_ann.txt, lines of `1 image image` or `0 image image`. All are for research only. The .bin "
    "and .rec files of face toolkits are not read: nothing is unpickled here.",
    reader="onebit.reid.face_datasets:FaceDataset",
    split="identity folder -> pairs of LFW, CFP-FP and AgeDB-30",
    protocol="pairs",
    metrics={**_ACCURACIES, **_RATES},
    columns=(
        *("backbone", *_ACCURACIES, "params", "wa", "search_cost", "search_method", *_RATES),
        *("memory_strict", "memory_paper", "ops_strict", "ops_paper"),
        *("untrained", "recipe", "epochs", "seeds", "source"),
    ),
    # Neither epochs nor input size are printed.
    printed=(Printed("bnas", "5", None, {m: m for m in _ACCURACIES}, None, None),),
    recipe="face",
)

ALL = (
    *(MARKET1501, DUKEMTMCREID, CUHK03, MSMT17, FACE),
    MARKET1501.mini(f"{_MINI}:write_market1501"),
    DUKEMTMCREID.mini(f"{_MINI}:write_dukemtmcreid"),
    CUHK03.mini(f"{_MINI}:write_cuhk03"),
    FACE.mini("onebit.commons.mini.face:write_face", recipe="mini-face"),
)
