"""What is published of each figure, with its source, and which constant of the generator decides it."""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = {
    "Cala": "Cala et al., AJNR 1981;2:41-47, PMC8331815: white 30.0 ± 3.4, deep grey 33.1 ± 3.0",
    "Brooks": "Brooks, Di Chiro, Keller, J Comput Assist Tomogr 1980;4:489-491, "
    "doi:10.1097/00004728-198008000-00016: a difference of 5.5",
    "Choi": "Choi et al., Emerg Med J 2008;25:666-669, PMID 18843066: a mean ratio of 1.32 in 27 normal controls, "
    "which is a difference of 9 where white matter has 28",
    "Controls": "BMC Neurol 2021, doi:10.1186/s12883-021-02480-6: a ratio of 1.17 as the limit drawn from 46 controls",
    "Fat": "Nucl Med Mol Imaging, PMC4043057: pure fat under the skin, -140 to -70",
    "Lee 2013": "Lee et al., Yonsei Med J 2013;54:28-33, doi:10.3349/ymj.2013.54.1.28: 24.7 to 53.7, mean 43.3",
    "Veins": "J Res Med Sci 2019;24:83, doi:10.4103/jrms.JRMS_1027_18: 52.5 ± 2.9 in 70 controls",
    "Lee 1997": "Lee et al., J Korean Med Sci 1997;12:353-359, doi:10.3346/jkms.1997.12.4.353: 38.0 ± 6.9 after 20 to "
    "30 days, 43.8 ± 12.8 after 31 to 60, 51.8 ± 5.1 after 61 to 90",
    "Park": "Park et al., J Korean Neurosurg Soc 2013;54:38-41, doi:10.3340/jkns.2013.54.1.38: 31 of 242 chronic "
    "ones darker than brain all over",
    "Mokin": "Mokin et al., Stroke 2017;48:1574-1579, doi:10.1161/STROKEAHA.117.016745: 2.0 darker after some 4 hours",
    "Aslam": "Aslam, Fauzi, Asian J Health Res 2025;4(3), doi:10.55561/ajhr.v4i3.288: acute 25.8, subacute 18.1, "
    "which is 15 less than grey matter has",
    "Daghighi": "Daghighi et al., Folia Morphol 2007;66:115-119, PMID 17594669, 1,569 CTs: pineal gland 71.0 %, "
    "plexus 66.2 %, basal ganglia 0.8 %, falx and other dura 7.3 %",
    "Ghorbanlou": "Ghorbanlou, Moradi, Mehdizadeh, Anat Cell Biol 2022;55:63-71, doi:10.5115/acb.21.137, 216 CTs: "
    "pineal gland 75.0 %, plexus 67.7 and 62.7 %, falx 26.8 %, basal ganglia 0.9 %",
    "Kwak": "Kwak et al., 1988, doi:10.11477/mf.1406206122, 2,877 CTs: pineal gland 67.7 %, plexus 57.6 %, "
    "basal ganglia 7.5 %",
    "Thulung": "Thulung et al., J Nepal Med Assoc 2019;57:29-32, doi:10.31729/jnma.3949, 100 CTs: frontal "
    "8.02 ± 1.97, temporal 4.71 ± 1.34, occipital 7.98 ± 2.47",
    "Olarinoye": "Olarinoye-Akorede et al., J Neurosci Rural Pract (https://ruralneuropractice.com/?p=5085), 488 "
    "normal CTs: 0.252 ± 0.04",
    "Alomar": "Alomar, Ghoneim, Neurosciences (Riyadh) 2024 (https://nsj.org.sa/node/3951), 384 normal CTs: "
    "0.255 ± 0.028",
    "Robinson": "Robinson et al., Int J Stroke 2021, 1,117 bleeds: median 14.0 mL, deep ones 9.8, lobar ones 28.8",
    "Solomon": "Solomon, Christianson, Samei, Med Phys 2012, doi:10.1118/1.4752209: with its kernel the spectrum's "
    "peak moves by up to 0.74 lp/mm",
    "Lev": "Lev et al., Radiology 1999;213:150-155, PMID 10540655: level 20, width 80 as the usual window",
    "Turner": "Turner, Holdsworth, Br J Radiol 2011;84:1061-1066, doi:10.1259/bjr/99730184: stroke window of level 40",
    "Liu": "Liu et al., Medicine 2017;96:e9412, doi:10.1097/MD.0000000000009412: 5 mm as routine, 1 mm as thin",
    "Parizel": "Parizel et al., Eur Radiol 2001;11:1770-1783, doi:10.1007/s003300000800: how blood changes over time",
    "Common": "General knowledge: no source was to be had whose figures could be seen",
}
"""Short name → what the page says of a source; whatever was not seen in its abstract is not cited from it."""


@dataclass(frozen=True)
class Published:
    """One figure: what it is, what is published of it, and where the generator decides it."""

    about: str

    unit: str

    form: str
    """How its numbers are written."""

    low: float | None
    """Ends of the published range: mean less and plus one standard deviation of people, or as the sources give it.
    None: no figure was found."""

    high: float | None

    sources: tuple[str, ...]

    where: str
    """File and constant that would change."""

    deviation: float | None = None
    """Standard deviation between people, where it is published."""

    is_share: bool = False
    """Whether each head has it or not: then the figure is a share of heads."""


ANATOMY, FINDINGS, LESIONS = (
    "training/phantom/anatomy/brain.py",
    "training/phantom/anatomy/findings.py",
    "training/phantom/lesions.py",
)
HEAD, PATIENT, RENDER = "training/phantom/head.py", "training/phantom/patient.py", "training/phantom/render.py"
CONTRAST = f"`{HEAD}`: `draw_traits`, `contrast`"
ACUTE = f"`{LESIONS}`: `_draw_density`"
THICKNESS = f"`{HEAD}`: `draw_traits`, `thickness`; `Head._measure_skull`, `thick`"
NOISE = (
    f"`{RENDER}`: `make_grains`, and `{PATIENT}`: `look`, where `grain` is drawn apart from `sharpness`; grains are in "
    "pixels, so they are twice as fine in slices of 512 x 512"
)
BLOOD = ("Common", "Parizel")


def describe_acute(kind: str, where: str = ACUTE) -> Published:
    """Fresh blood of one kind."""
    return Published(f"acute blood, {kind}", "HU", ".1f", 50, 80, BLOOD, where)


def describe_area(kind: str) -> Published:
    """Area of one kind of bleed on a slice."""
    return Published(f"area of a bleed on a slice, {kind}", "cm²", ".2f", None, None, (), f"`{LESIONS}`")


PUBLISHED = {
    "grey matter": Published(
        "grey matter (lentiform nucleus, thalamus)", "HU", ".1f", 30.1, 36.1, ("Cala",), f"`{HEAD}`: `GREY_MATTER`", 3.0
    ),
    "white matter": Published(
        "white matter (frontal)", "HU", ".1f", 26.6, 33.4, ("Cala",), f"`{HEAD}`: `WHITE_MATTER`", 3.4
    ),
    "grey less white matter": Published(
        "grey less white matter", "HU", ".1f", 3.1, 9.0, ("Cala", "Brooks", "Choi"), CONTRAST
    ),
    "grey to white matter": Published(
        "ratio of grey to white matter", "", ".2f", 1.17, 1.32, ("Choi", "Controls"), CONTRAST
    ),
    "cerebrospinal fluid": Published(
        "fluid in the lateral ventricles", "HU", ".1f", 0, 15, ("Common",), f"`{HEAD}`: `CSF`"
    ),
    "fat": Published("fat under the scalp", "HU", ".0f", -140, -70, ("Fat",), f"`{HEAD}`: `FAT`"),
    "muscle": Published("muscle (temporalis)", "HU", ".1f", 40, 65, ("Common",), f"`{HEAD}`: `MUSCLE`"),
    "superior sagittal sinus": Published(
        "blood in the superior sagittal sinus",
        "HU",
        ".1f",
        43.3,
        55.4,
        ("Lee 2013", "Veins"),
        f"`{HEAD}`: `VENOUS_BLOOD`; `{ANATOMY}`: `_draw_sinuses`, `blood`",
    ),
    "acute, intraparenchymal": describe_acute("in the brain"),
    "acute, epidural": describe_acute("epidural"),
    "acute, subdural": describe_acute("subdural"),
    "acute, subarachnoid": describe_acute("subarachnoid", f"`{LESIONS}`: `_plan_subarachnoid`, `density`"),
    "acute, intraventricular": describe_acute("in the ventricles"),
    "subacute, subdural": Published(
        "subacute blood, subdural",
        "HU",
        ".1f",
        31.1,
        44.9,
        ("Lee 1997",),
        f"`{LESIONS}`: `_plan_subdural`, `density`; `training/phantom/painting.py`: `_paint_subdural`, what settles",
        6.9,
    ),
    "chronic, subdural": Published(
        "chronic blood, subdural",
        "HU",
        ".1f",
        31.0,
        56.6,
        ("Lee 1997", "Park"),
        f"`{LESIONS}`: `_plan_subdural`, `density` from 16 to 26, which only some are",
        12.8,
    ),
    "infarct": Published("infarct", "HU", ".1f", 18.1, 25.8, ("Aslam",), f"`{LESIONS}`: `_plan_infarct`, `density`"),
    "infarct, fall": Published(
        "infarct: how much darker than the same brain before",
        "HU",
        ".1f",
        2.0,
        15.0,
        ("Mokin", "Aslam", "Cala"),
        f"`{LESIONS}`: `_plan_infarct`, `density`",
    ),
    "calcification": Published(
        "calcification, densest pixel", "HU", ".0f", 100, 400, ("Common",), f"`{HEAD}`: `CALCIFICATION`"
    ),
    "pineal gland calcified": Published(
        "heads with a calcified pineal gland",
        "%",
        ".1f",
        67.7,
        75.0,
        ("Daghighi", "Ghorbanlou", "Kwak"),
        "`training/phantom/recipe.py`: `FINDINGS`, `calcification`",
        is_share=True,
    ),
    "choroid plexus calcified": Published(
        "heads with a calcified choroid plexus",
        "%",
        ".1f",
        57.6,
        67.7,
        ("Daghighi", "Ghorbanlou", "Kwak"),
        "`training/phantom/recipe.py`: `FINDINGS`, `calcification`",
        is_share=True,
    ),
    "basal ganglia calcified": Published(
        "heads with calcified basal ganglia",
        "%",
        ".1f",
        0.8,
        7.5,
        ("Daghighi", "Ghorbanlou", "Kwak"),
        f"`{FINDINGS}`: `_draw_calcifications`, `nuclei`",
        is_share=True,
    ),
    "falx calcified": Published(
        "heads with an ossified falx",
        "%",
        ".1f",
        7.3,
        26.8,
        ("Daghighi", "Ghorbanlou"),
        f"`{FINDINGS}`: `_draw_calcifications`, `falx`",
        is_share=True,
    ),
    "skull, frontal": Published(
        "skull, frontal, in the middle", "mm", ".1f", 6.05, 9.99, ("Thulung",), f"{THICKNESS}, its front bump", 1.97
    ),
    "skull, temporal": Published("skull, temporal", "mm", ".1f", 3.37, 6.05, ("Thulung",), THICKNESS, 1.34),
    "skull, occipital": Published("skull, occipital", "mm", ".1f", 5.51, 10.45, ("Thulung",), THICKNESS, 2.47),
    "skull, length": Published(
        "skull, outer length",
        "mm",
        ".0f",
        170,
        190,
        ("Common",),
        "`training/phantom/head.py`: `HALF_LENGTH_MM`, one for all heads",
        7.0,
    ),
    "cranial index": Published(
        "cranial index, width by length", "%", ".1f", 74, 84, ("Common",), f"`{HEAD}`: `draw_traits`, `width`"
    ),
    "Evans index": Published(
        "Evans index", "", ".3f", 0.212, 0.292, ("Olarinoye", "Alomar"), f"`{HEAD}`: `draw_traits`, `ventricles`", 0.04
    ),
    **{f"area, {kind}": describe_area(kind) for kind in ("epidural", "subdural", "subarachnoid", "intraventricular")},
    "area, intraparenchymal": describe_area("in the brain"),
    "volume, intraparenchymal": Published(
        "volume of a bleed in the brain, were it a ball",
        "mL",
        ".1f",
        9.8,
        28.8,
        ("Robinson",),
        f"`{LESIONS}`: `_plan_bleed`, `radius`; a third are small on purpose, and few slices meet the largest section",
    ),
    "thickness, subdural": Published(
        "thickness of a subdural bleed", "mm", ".1f", 5, 20, ("Common",), f"`{LESIONS}`: `_plan_subdural`, `radius`"
    ),
    "noise": Published(
        "noise in the middle of the brain", "HU", ".2f", 2.0, 5.0, ("Common",), f"`{PATIENT}`: `look`, `sigma`"
    ),
    "peak frequency, soft": Published(
        "peak of the noise power, soft kernels", "lp/mm", ".2f", 0.15, 0.45, ("Common",), NOISE
    ),
    "peak frequency, sharp": Published(
        "peak of the noise power, sharp kernels", "lp/mm", ".2f", 0.25, 0.6, ("Common", "Solomon"), NOISE
    ),
    "mean frequency, soft": Published(
        "mean frequency of the noise power, soft kernels", "lp/mm", ".2f", 0.2, 0.4, ("Common",), NOISE
    ),
    "mean frequency, sharp": Published(
        "mean frequency of the noise power, sharp kernels", "lp/mm", ".2f", 0.25, 0.5, ("Common", "Solomon"), NOISE
    ),
    "window level": Published(
        "level of the window", "HU", ".1f", 20, 40, ("Lev", "Turner"), f"`{PATIENT}`: `look`, `usual` and `wide`"
    ),
    "window width": Published(
        "width of the window", "HU", ".1f", 80, 100, ("Lev", "Common"), f"`{PATIENT}`: `look`, `usual` and `wide`"
    ),
    "slice thickness": Published(
        "slice thickness in DICOM", "mm", ".2f", 1, 5, ("Liu",), f"`{PATIENT}`: `_THICKNESS_MM`"
    ),
}
"""Name of a figure → what is published of it, in the order of the page."""
