"""Numbers printed in the tables of the papers, one CSV file per table, one line per number.

    paper    key of `CITATIONS`
    table    number of the table in that paper
    row      the method or backbone; variants that the paper tells apart by a footnote sign are named
    column   what was measured, the same name in every table: `top1`, `map`, `memory`, `search_cost`, ...
    value    the number with the digits that were printed
    unit     key of `UNITS`
    group    what the row or number belongs to where row and column are not enough: a dataset, a section
             of the table, or weight/activation bits; may be empty
    note     remarks of ours: footnotes, contradictions, and `uncertain: ...` where our copy of
             the paper does not show the cell clearly; may be empty
    copy     how our copy of the paper shows the cell, where that does not touch the number: tables do not
             repeat it

Cells with a dash have no line. A cell that spans several rows has one line per row. The
fourth ImageNet row of DCP-NAS Table 9 (neither label smoothing nor auxiliary loss) is missing because
our copy of the paper does not show it.

From `ir-net` on, the numbers are those that authors print in the README of their code, at the commit that
`CITATIONS` names; tables are counted in its order, and rows of other people's methods are left out.

These numbers are the papers' claims, never results of this suite: tables keep the two apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onebit.commons import guards
from onebit.commons.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent
COLUMNS = ("paper", "table", "row", "column", "value", "unit", "group", "note", "copy")

CITATIONS = {
    "dcp-nas": (
        "Yanjing Li, Sheng Xu, Xianbin Cao, Li'an Zhuo, Baochang Zhang, Tian Wang, Guodong Guo. "
        "DCP-NAS: Discrepant Child-Parent Neural Architecture Search for 1-bit CNNs. "
        "Manuscript, arXiv:2306.15390, 2023."
    ),
    "cp-nas": (
        "L. Zhuo, B. Zhang, H. Chen, L. Yang, C. Chen, Y. Zhu, D. Doermann. "
        "CP-NAS: Child-Parent Neural Architecture Search for Binary Neural Networks. "
        "Proc. of IJCAI, pp. 1033-1039, 2020."
    ),
    "bnas": (
        "H. Chen, L. Zhuo, B. Zhang, X. Zheng, J. Liu, R. Ji, D. Doermann, G. Guo. "
        "Binarized Neural Architecture Search for Efficient Object Recognition. "
        "International Journal of Computer Vision 129(2), pp. 501-516, 2021."
    ),
    "abanditnas": (
        "ABanditNAS, section 4.1 of a book chapter on binary neural architecture search, "
        "Table 4.1 on p. 99 (the page before section CP-NAS: Child-Parent Neural Architecture Search "
        "for 1-bit CNNs); our copy is that page alone, without the book's title and authors."
    ),
    "ir-net": (
        "H. Qin, R. Gong, X. Liu, M. Shen, Z. Wei, F. Yu, J. Song. Forward and Backward Information Retention for "
        "Accurate Binary Neural Networks. arXiv:1909.10788; README of github.com/htqin/IR-Net at 831282f."
    ),
    "rbnn": (
        "M. Lin, R. Ji, Z. Xu, B. Zhang, Y. Wang, Y. Wu, F. Huang, C.-W. Lin. Rotated Binary Neural Network. NeurIPS "
        "2020; README of github.com/lmbxmu/RBNN at 0410fa5."
    ),
    "recu": (
        "Z. Xu, M. Lin, J. Liu, J. Chen, L. Shao, Y. Gao, Y. Tian, R. Ji. ReCU: Reviving the Dead Weights in Binary "
        "Neural Networks. ICCV 2021; README of github.com/z-hXu/ReCU at 070c802."
    ),
    "adabin": (
        "Z. Tu, X. Chen, P. Ren, Y. Wang. AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets. ECCV "
        "2022; README of github.com/huawei-noah/Efficient-Computing, BinaryNetworks/AdaBin, at 0aff992."
    ),
    "sd-bnn": (
        "P. Xue, Y. Lu, J. Chang, X. Wei, Z. Wei. Self-Distribution Binary Neural Networks. Applied Intelligence, 2022; "
        "README of github.com/pingxue-hfut/sd-bnn at c22be17."
    ),
    "ir2net": (
        "P. Xue, Y. Lu, J. Chang, X. Wei, Z. Wei. IR2Net: Information Restriction and Information Recovery for Accurate "
        "Binary Neural Networks. Neural Computing and Applications, 2023; README of github.com/pingxue-hfut/IR2Net at "
        "fb00dd6."
    ),
    "ab-bnn": (
        "R. Ma, G. Qiao, Y. Liu, L. Meng, N. Ning, Y. Liu, S. Hu. A&B BNN: Add&Bit-Operation-Only Hardware-Friendly "
        "Binary Neural Network. CVPR 2024; README of github.com/Ruichen0424/AB-BNN at 1bd84f5."
    ),
    "bnext": (
        "N. Guo, J. Bethge, C. Meinel, H. Yang. Join the High Accuracy Club on ImageNet with A Binary Neural Network "
        "Ticket. arXiv:2211.12933; README of github.com/hpi-xnor/BNext at 591e229."
    ),
    "reactnet": (
        "Z. Liu et al. ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions. "
        "arXiv:2003.03488; README of github.com/liuzechun/ReActNet at a6cd08d."
    ),
    "rbonn": (
        "S. Xu, Y. Li, T. Wang, T. Ma, B. Zhang, P. Gao, Y. Qiao, J. Lu, G. Guo. Recurrent Bilinear Optimization for "
        "Binary Neural Networks. ECCV 2022; README of github.com/SteveTsui/RBONN at c3ae0ba."
    ),
    "rebnn": (
        "S. Xu, Y. Li, T. Ma, M. Lin, H. Dong, B. Zhang, P. Gao, J. Lu. Resilient Binary Neural Network. AAAI 2023; "
        "README of github.com/SteveTsui/ReBNN at 414d11c."
    ),
    "larq-zoo": (
        "Larq Zoo, pretrained models: 1 its own, 2 its replications of the literature; docs/zoo/index.md of "
        "github.com/larq/docs at 67eb830."
    ),
    "ida-det": (
        "IDa-Det: An Information Discrepancy-aware Distillation for 1-bit Detectors. ECCV 2022; README of "
        "github.com/SteveTsui/IDa-Det at 0b8f744."
    ),
}

#: Names of the papers that the suite is about.
NAMES = {"dcp-nas": "DCP-NAS", "cp-nas": "CP-NAS", "bnas": "BNAS", "abanditnas": "ABanditNAS"}

UNITS = {
    "percent": "percent, 0 to 100; for `gap` a difference of two percentages",
    "Mbit": "10^6 bits",
    "MB": "megabytes",
    "M_params": "10^6 parameters",
    "M_ops": "10^6 operations (OPs)",
    "M_flops": "10^6 floating-point operations (FLOPs)",
    "G_ops": "10^9 operations (OPs)",
    "GPU_days": "days on one GPU",
    "bits": "bits",
    "ms": "milliseconds",
    "ratio": "how many times better than the real-valued network",
    "count": "number of things",
    "unstated": "the paper prints no unit",
}


def load(paper: str | None = None, table: str | int | float | None = None) -> pd.DataFrame:
    """The printed numbers as a data frame with the columns of `COLUMNS`.

    Args:
        paper: key of `CITATIONS`; None for all of them.
        table: number of a table, such as 11, "11" or "4.1"; None for all of them.

    Returns:
        Rows in the papers' order. `value` is float64 (percent stays percent), all else is text.

    Raises:
        InputError: no such paper, or none of the papers asked for has such a table.
    """
    import pandas as pd

    if paper is not None:
        guards.known("paper with reported numbers", paper, CITATIONS)
    numbers = pd.concat(
        [_read(path) for key in CITATIONS for path in _files(key) if paper in (None, key)], ignore_index=True
    )
    if table is None:
        return numbers
    chosen = numbers[numbers["table"] == str(table)].reset_index(drop=True)
    if chosen.empty:
        there = numbers.groupby("paper", sort=False)["table"].unique()
        listed = "; ".join(f"{key}: {', '.join(tables)}" for key, tables in there.items())
        raise InputError(f"no reported table {str(table)!r}; there are {listed}")
    return chosen


def _files(paper: str) -> list[Path]:
    """The paper's CSV files by table number."""
    prefix = f"{paper.replace('-', '_')}_table"
    found = FOLDER.glob(f"{prefix}*.csv")
    return sorted(found, key=lambda p: float(p.stem.removeprefix(prefix).replace("_", ".")))


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    text = dict.fromkeys(COLUMNS, str) | {"value": "float64"}
    return pd.read_csv(path, dtype=text, keep_default_na=False)
