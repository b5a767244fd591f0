"""What the paper prints (Zhong et al., arXiv 2508.21313), and where it contradicts itself.

For comparison of the layout and the order of magnitude only: other models, data and settings gave
these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

Column = tuple[str, float | None]  # method and share ratio
Row = tuple[str, str]  # task and metric

COLUMNS: tuple[Column, ...] = (
    ("cloud", None),
    ("device", None),
    ("cloud_rag", None),
    ("device_rag", None),
    ("direct_ft", None),
    ("eda_ft", 0.5),
    ("eda_ft", 1.0),
    ("rkd_ft", 0.5),
    ("rkd_ft", 1.0),
    ("cdcda", 0.5),
    ("cdcda", 1.0),
)
_TABLE1: Mapping[Row, str] = {
    ("lamp_1", "accuracy"): ".520 .390 .560 .310 .420 .380 .410 .480 .460 .520 .530",
    ("lamp_1", "f1"): ".515 .356 .528 .381 .390 .363 .382 .421 .389 .479 .483",
    ("lamp_2", "accuracy"): ".248 .017 .319 .009 .243 .277 .296 .265 .283 .303 .336",
    ("lamp_2", "f1"): ".129 .017 .225 .019 .099 .132 .156 .112 .125 .143 .167",
    ("lamp_3", "mae"): "1.120 .640 1.970 1.580 .474 .480 .450 .579 .474 .463 .400",
    ("lamp_3", "rmse"): "1.371 1.131 2.508 2.191 .946 .949 .831 1.091 .912 .940 .834",
    ("lamp_4", "rouge1"): ".107 .102 .122 .092 .106 .116 .117 .113 .116 .119 .120",
    ("lamp_4", "rougeL"): ".096 .090 .110 .083 .094 .102 .104 .101 .103 .104 .107",
    ("lamp_4", "bertscore"): ".847 .838 .849 .837 .845 .847 .847 .846 .847 .848 .849",
    ("lamp_5", "rouge1"): ".427 .360 .457 .328 .375 .362 .370 .359 .375 .380 .382",
    ("lamp_5", "rougeL"): ".362 .309 .379 .292 .314 .301 .316 .292 .307 .305 .317",
    ("lamp_5", "bertscore"): ".894 .885 .896 .882 .886 .880 .885 .883 .884 .886 .886",
    ("lamp_7", "rouge1"): ".365 .337 .355 .296 .337 .354 .373 .359 .374 .362 .383",
    ("lamp_7", "rougeL"): ".310 .297 .315 .262 .302 .311 .327 .311 .328 .325 .336",
    ("lamp_7", "bertscore"): ".881 .877 .881 .869 .875 .879 .880 .881 .882 .881 .881",
}
TABLE1: dict[Row, dict[Column, float]] = {
    row: dict(zip(COLUMNS, map(float, values.split()), strict=True))
    for row, values in _TABLE1.items()
}

RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # 0 is direct_ft
_TABLE2: Mapping[Row, str] = {
    ("lamp_2", "accuracy"): ".243 .250 .282 .303 .320 .327 .336",
    ("lamp_2", "f1"): ".099 .103 .120 .143 .156 .166 .167",
    ("lamp_7", "rouge1"): ".337 .344 .355 .362 .369 .373 .383",
    ("lamp_7", "rougeL"): ".302 .299 .315 .325 .316 .330 .336",
    ("lamp_7", "bertscore"): ".875 .878 .880 .881 .881 .883 .881",
}
TABLE2: dict[Row, dict[float, float]] = {
    row: dict(zip(RATIOS, map(float, values.split()), strict=True))
    for row, values in _TABLE2.items()
}

ABLATIONS: tuple[Column, ...] = (
    ("cdcda", 0.5),
    ("cdcda", 1.0),
    ("cdcda_random", 0.5),
    ("cdcda_random", 1.0),
    ("cdcda_unfiltered", 0.5),
    ("cdcda_unfiltered", 1.0),
    ("direct_ft", None),
)
_TABLE3: Mapping[Row, str] = {
    ("lamp_4", "rouge1"): ".119 .120 .113 .112 .115 .116 .106",
    ("lamp_4", "rougeL"): ".104 .107 .099 .100 .103 .104 .094",
    ("lamp_7", "rouge1"): ".362 .383 .352 .344 .354 .354 .337",
    ("lamp_7", "rougeL"): ".325 .336 .314 .302 .315 .314 .302",
}
TABLE3: dict[Row, dict[Column, float]] = {
    row: dict(zip(ABLATIONS, map(float, values.split()), strict=True))
    for row, values in _TABLE3.items()
}

# Table 4: queries, records per user, input and output length, kept synthetic pairs and theirs
TABLE4: dict[str, tuple[float, ...]] = {
    "lamp_1": (100, 317.57, 78.43, 3.00, 15_928, 161.76, 19.15),
    "lamp_2": (2_752, 54.58, 129.55, 2.24, 8_962, 121.21, 2.20),
    "lamp_3": (100, 959.02, 244.79, 1.00, 15_721, 193.19, 1.00),
    "lamp_4": (955, 269.08, 31.49, 15.60, 12_736, 27.40, 14.27),
    "lamp_5": (100, 443.03, 222.60, 15.52, 23_473, 156.92, 18.63),
    "lamp_7": (100, 120.15, 40.90, 27.66, 16_490, 39.56, 0.00),
}

FIGURE2 = (
    "The paper's Figure 2 prints no numbers. Its text: LaMP-2 is flat beyond k = 1, LaMP-7 rises "
    "with k. It speaks of ROUGE for LaMP-2, whose metrics are accuracy and F1."
)
CONTRADICTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "table1": (
        (
            "lamp_3",
            "LaMP-3: with whole-number ratings, both device and cloud columns and EDA-FT fit 100 "
            "queries and not 95; Direct-FT, RKD-FT and CDCDA fit 95 and not 100 (Direct-FT: MAE "
            "45/95, RMSE the root of 85/95). One row, two sets of users: EDA-FT's .450 and CDCDA's "
            ".400 are not like for like.",
        ),
        (
            "lamp_2",
            "LaMP-2: M_device at .017 is far below chance over 15 tags (.067) although the text "
            "calls it tuned on the remaining users; it looks like answers in the wrong form.",
        ),
        (
            "lamp_1",
            "LaMP-1: accuracies down to .31 on a choice of two suggest that many answers could "
            "not be read; CDCDA's .53 against M_cloud's .52 is one query of 100.",
        ),
        ("lamp_7", "LaMP-7: Direct-FT equals M_device in ROUGE-1 (.337)."),
        (
            "",
            "LaMP-1, 3, 5 and 7 have 100 queries, one for each user: one standard error of an "
            "accuracy of .5 is .05. The paper gives no seeds, repetitions or tests.",
        ),
    ),
    "table2": (
        (
            "lamp_7",
            "LaMP-7: ROUGE-L falls from 0 to 10% and from 50 to 70%, ROUGE-1 rises throughout.",
        ),
    ),
    "table3": (
        (
            "lamp_7",
            "LaMP-7: RS at 100% has Direct-FT's ROUGE-L (.302); -DS has the same ROUGE-1 at 50 and "
            "100% (.354).",
        ),
        ("", "RS gets worse on three of four metrics with more shared data."),
    ),
}
