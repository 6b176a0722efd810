"""Each published set from a raw tree in its official layout, with its quirks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table, prepare
from fairtune_hf.data.checked_rows import read_checked_rows
from fairtune_hf.data.declaration import ReadRequest

SIDE = 16


def save_picture(path, seed, size=(30, 20), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def rows_of(dataset, root, **options):
    return read_checked_rows(dataset, root, ReadRequest(options=options, image_size=SIDE))


# ----------------------------------------------------------------------------- Fitzpatrick17k


@pytest.fixture
def fitzpatrick(tmp_path):
    kinds = ["malignant", "benign", "non-neoplastic"]
    lines = []
    for i in range(240):
        lines.append(
            {
                "md5hash": f"{i:032x}",
                "fitzpatrick_scale": (-1, 1, 2, 3, 4, 5, 6, 4)[i % 8],
                "fitzpatrick_centaur": 1,
                "label": "x",
                "nine_partition_label": "y",
                "three_partition_label": kinds[i // 8 % 3],
                "qc": "3 Wrongly labelled" if i == 9 else "",
                "url": "",
                "url_alphanum": "",
            }
        )
    pd.DataFrame(lines).to_csv(tmp_path / "fitzpatrick17k.csv", index=False)
    for line in lines[:-5]:
        save_picture(tmp_path / "images" / f"{line['md5hash']}.jpg", int(line["md5hash"], 16))
    return tmp_path


def test_fitzpatrick(fitzpatrick):
    table = load_dataset_table("fitzpatrick17k", fitzpatrick, image_size=SIDE)
    # 30 rows of unknown type; of the last five rows (types 3, 4, 5, 6, 4) no picture is there.
    assert table.dropped == {"skin type unknown": 30, "picture missing": 5}
    assert len(table) == 240 - 30 - 5
    assert table.groups == ("I-III", "IV-VI")
    row = table.frame.set_index("row_id")
    assert row.loc[f"{3:032x}", "skin_type"] == "I-III"
    assert row.loc[f"{4:032x}", "skin_type"] == "IV-VI"
    assert row.loc[f"{1:032x}", "label"] == 1
    assert row.loc[f"{9:032x}", "label"] == 0
    assert row.loc[f"{17:032x}", "label"] == 0
    assert any("no patient id" in w for w in table.warnings)


def test_fitzpatrick_split_does_not_depend_on_missing_pictures(fitzpatrick):
    before = rows_of("fitzpatrick17k", fitzpatrick).frame.set_index("row_id")["split"]
    table = load_dataset_table("fitzpatrick17k", fitzpatrick, image_size=SIDE)
    assert (before[table.frame["row_id"]].to_numpy() == table.frame["split"]).all()


# ----------------------------------------------------------------------------- HAM10000


def ham_lines():
    diagnoses = ["nv", "mel", "bkl", "bcc", "akiec", "vasc", "df"]
    for i in range(420):
        yield {
            "lesion_id": f"HAM_{i // 2:07d}",
            "image_id": f"ISIC_{i:07d}",
            "dx": diagnoses[i // 2 % 7],
            "dx_type": "histo",
            "age": ("60.0", "65.0", "", "0.0", "80.0")[i // 14 % 5],
            "sex": ("male", "female", "unknown", "female", "male")[i // 2 % 5],
            "localization": "back",
        }


@pytest.mark.parametrize("layout", ["parts", "flat tab"])
def test_ham10000(tmp_path, layout):
    lines = list(ham_lines())
    parts = layout == "parts"
    name = "HAM10000_metadata.csv" if parts else "HAM10000_metadata"
    # Redistributed copies repeat image ids after augmentation.
    repeated = pd.DataFrame([*lines, lines[0], lines[1]])
    repeated.to_csv(tmp_path / name, index=False, sep="," if parts else "\t")
    for i, line in enumerate(lines):
        folder = f"HAM10000_images_part_{1 + i % 2}" if parts else "HAM10000_images"
        save_picture(tmp_path / folder / f"{line['image_id']}.jpg", i)
    table = load_dataset_table("ham10000", tmp_path, image_size=SIDE, sensitive="age")
    blank = sum(line["age"] == "" for line in lines)
    assert table.dropped == {"repeated image id": 2, "age unknown": blank}
    assert len(table) == 420 - blank
    by_id = table.frame.set_index("row_id")
    told = {line["image_id"]: line for line in lines if line["age"]}
    assert set(by_id.index) == set(told)
    for key, line in told.items():
        assert by_id.loc[key, "label"] == (line["dx"] in ("akiec", "mel"))
        # 60 itself is in the lower group, 0 is an age.
        assert by_id.loc[key, "age"] == (">60" if float(line["age"]) > 60 else "<=60")
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
    clinical = rows_of("ham10000", tmp_path, label_rule="clinical")
    bcc = sum(line["dx"] == "bcc" for line in told.values())
    assert clinical.frame["label"].sum() == table.labels.sum() + bcc
    sex = load_dataset_table("ham10000", tmp_path, image_size=SIDE, sensitive="sex")
    unknown = sum(line["sex"] == "unknown" for line in told.values())
    assert sex.dropped["sex unknown"] == unknown
    assert sex.groups == ("M", "F")
    # The split is made before rows of unknown sex are dropped.
    joined = sex.frame.merge(table.frame, on="row_id")
    assert (joined["split_x"] == joined["split_y"]).all()


# ----------------------------------------------------------------------------- PAPILA


def papila_lines(eye, patients=240):
    for i in range(patients):
        number = 2 + 2 * i
        diagnosis = (0, 1, 2, 0, 1)[(i + (eye == "OS" and i % 7 == 0)) % 5]
        yield [f"#{number:03d}", 40 + 40 * (i // 5 % 2), i // 10 % 2, diagnosis, 0.5, 1.0]


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_papila(tmp_path, kind):
    root = tmp_path / "PapilaDB-PAPILA-abc123"
    (root / "ClinicalData").mkdir(parents=True)
    expected = {}
    for eye in ("OD", "OS"):
        lines = list(papila_lines(eye))
        if kind == "xlsx":
            head = [
                [None, "Age", "Gender", "Diagnosis", "Refractive_Defect", None],
                [None, None, None, None, "dioptre_1", "dioptre_2"],
                ["ID", None, None, None, None, None],
            ]
            sheet = pd.DataFrame([*head, *lines])
            path = root / "ClinicalData" / f"patient_data_{eye.lower()}.xlsx"
            sheet.to_excel(path, header=False, index=False)
        else:
            names = ["ID", "Diagnosis", "Gender", "Age", "d1", "d2"]
            turned = [[a, d, g, age, x, y] for a, age, g, d, x, y in lines]
            path = root / "ClinicalData" / f"patient_data_{eye.lower()}.csv"
            pd.DataFrame(turned, columns=names).to_csv(path, index=False)
        for line in lines:
            name = f"RET{line[0][1:]}{eye}"
            save_picture(root / "FundusImages" / f"{name}.jpg", hash((name,)) % 10**6)
            expected[name] = line
    table = load_dataset_table("papila", tmp_path, image_size=SIDE, sensitive="sex")
    kept = {name: line for name, line in expected.items() if line[3] != 2}
    assert table.dropped == {"suspected glaucoma": len(expected) - len(kept)}
    by_id = table.frame.set_index("row_id")
    assert set(by_id.index) == set(kept)
    for name, line in kept.items():
        row = by_id.loc[name]
        assert row["label"] == line[3]
        assert row["sex"] == ("M", "F")[line[2]]
        assert row["age"] == ("<=60", ">60")[line[1] > 60]
        assert row["patient_id"] == line[0][1:]
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
    patients = table.frame.drop_duplicates("patient_id")["split"].value_counts()
    assert patients["train"] / patients.sum() == pytest.approx(0.7, abs=0.02)
    assert patients["test"] / patients.sum() == pytest.approx(0.2, abs=0.02)


def test_papila_published_sizes():
    # 210 patients split 147/21/42, as the seeds and shares of MEDFAIR give.
    from fairtune_hf.data.papila import SPEC
    from fairtune_hf.data.splits import published_split

    ids = pd.Series([f"{i:03d}" for i in range(210)])
    split = published_split(
        ids, seeds=SPEC.split_seeds, held_out=SPEC.held_out, test_share=SPEC.test_share
    )
    assert split.value_counts().to_dict() == {"train": 147, "validation": 21, "test": 42}


# ----------------------------------------------------------------------------- OL3I


@pytest.fixture
def ol3i(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    lines = []
    with h5py.File(tmp_path / "l3_slices.h5", "w") as file:
        for i in range(160):
            key = f"anon{i:04d}"
            lines.append(
                {
                    "anon_id": key,
                    "age": (50, 70)[i % 2],
                    "sex": ("male", "female")[i // 2 % 2],
                    "bmi": 25,
                    "smoker": 0,
                    "label_1y": i // 4 % 2,
                    "set_1y": ("train", "train", "val", "test")[i // 8 % 4],
                    "label_5y": 1 - i // 4 % 2,
                    "set_5y": ("val", "train", "train", "test")[i // 8 % 4],
                }
            )
            values = rng.integers(-1024, 3000, (SIDE, SIDE)).astype(np.int16)
            values[0, :5] = (-2000, -1000, 0, 1000, 3000)
            file[key] = values if i else np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    pd.DataFrame(lines).to_csv(tmp_path / "clinical_data.csv", index=False)
    return tmp_path


def test_ol3i_windows_hounsfield_units(ol3i):
    table = load_dataset_table("ol3i", ol3i, image_size=SIDE)
    at = {r: i for i, r in enumerate(table.frame["row_id"])}
    # Cast to uint8, -1000 would be 24 and 3000 would be 184: nothing may wrap.
    assert table.images[at["anon0001"], 0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    np.testing.assert_array_equal(
        table.images[at["anon0000"], :, :, 1].ravel(), np.arange(SIDE * SIDE)
    )
    assert (table.images[..., 0] == table.images[..., 2]).all()
    narrow = load_dataset_table("ol3i", ol3i, image_size=SIDE, window_low=-100, window_high=100)
    assert narrow.images[at["anon0001"], 0, :5, 0].tolist() == [0, 0, 128, 255, 255]
    assert (narrow.images != table.images).any()
    assert narrow.options["window_low"] == -100.0


def test_ol3i_rows_and_shipped_split(ol3i):
    table = load_dataset_table("ol3i", ol3i, image_size=SIDE, sensitive="sex")
    source = pd.read_csv(ol3i / "clinical_data.csv").set_index("anon_id").loc[table.frame["row_id"]]
    assert (table.labels == source["label_1y"]).all()
    names = source["set_1y"].replace({"val": "validation"})
    assert (table.frame["split"].to_numpy() == names).all()
    assert (table.group_names == source["sex"].map({"male": "M", "female": "F"})).all()
    later = rows_of("ol3i", ol3i, horizon="5y").frame.set_index("row_id")
    later = later.loc[table.frame["row_id"]]
    assert (later["label"].to_numpy() == 1 - table.labels).all()
    assert (later["split"].to_numpy() != table.frame["split"]).any()


def test_ol3i_missing_slice_is_named(ol3i):
    frame = pd.read_csv(ol3i / "clinical_data.csv")
    frame.loc[3, "anon_id"] = "nobody"
    frame.to_csv(ol3i / "clinical_data.csv", index=False)
    with pytest.raises(FileNotFoundError, match=r"1 of 160 are not there: l3_slices.h5:nobody"):
        load_dataset_table("ol3i", ol3i, image_size=SIDE)


# ----------------------------------------------------------------------------- OASIS-1


@pytest.fixture
def oasis(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    lines = []
    for i in range(48):
        session = f"OAS1_{i + 1:04d}_MR1"
        rating = ("0", "0.5", "1", "", "0", "2")[i % 6]
        lines.append([session, "MF"[i // 6 % 2], 70 + 10 * (i // 12 % 2), rating, "N/A"])
        folder = tmp_path / f"disc{1 + i % 3}" / session / "PROCESSED" / "MPRAGE" / "T88_111"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(i)
        for masked in ("", "_masked"):
            values = rng.integers(0, 3000, (6, 20, 6, 1)).astype(np.int16)
            values[0, 0, 0, 0], values[0, 1, 0, 0] = 0, 3000
            if masked:
                values = values // 2
            stem = f"{session}_mpr_n{3 + i % 4}_anon_111_t88{masked}_gfc"
            image = nibabel.analyze.AnalyzeImage(values, np.eye(4))
            nibabel.save(image, folder / f"{stem}.img")
    lines.append(["OAS1_0001_MR2", "M", 70, "", "40"])
    columns = ["ID", "M/F", "Age", "CDR", "Delay"]
    pd.DataFrame(lines, columns=columns).to_csv(tmp_path / "oasis_cross-sectional.csv", index=False)
    return tmp_path


def test_oasis(oasis):
    import nibabel

    options = {"slices_per_subject": 4, "intensity": "range", "image_size": 6}
    table = load_dataset_table("oasis1", oasis, sensitive="age", volume="full", **options)
    # 8 sessions of 48 and the repeat session have no rating.
    assert table.dropped == {"sessions without CDR": 9}
    assert len(table) == 40 * 4
    assert table.groups == ("<=75", ">75")
    source = pd.read_csv(oasis / "oasis_cross-sectional.csv").set_index("ID")
    for row in (0, 77, 159):
        session, index = table.frame["row_id"][row].rsplit("_", 1)
        told = source.loc[session]
        assert table.labels[row] == (told["CDR"] > 0)
        assert table.group_names[row] == (">75" if told["Age"] > 75 else "<=75")
        assert table.frame["patient_id"][row] == session[:9]
        assert 8 <= int(index) < 12
        path = next(p for p in oasis.glob(f"disc*/{session}/**/*.img") if "masked" not in p.name)
        volume = np.asarray(nibabel.load(path).dataobj).squeeze().astype(float)
        scaled = np.rint((volume - volume.min()) / (volume.max() - volume.min()) * 255)
        # 16-bit values are scaled; a cast to uint8 would wrap them.
        np.testing.assert_array_equal(
            table.images[row, :, :, 0], np.rot90(scaled[:, int(index), :])
        )
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
    masked = load_dataset_table("oasis1", oasis, sensitive="age", **options)
    assert (masked.images != table.images).any()


def test_oasis_options(oasis):
    few = rows_of("oasis1", oasis, cdr_cut="above_1", age_threshold="60", slices_per_subject=20)
    assert few.frame["label"].sum() == 8 * 20
    assert set(few.frame["age"]) == {">60"}


def test_oasis_published_split_sizes():
    # 235 subjects in the cells that Table 13 implies: 91/45 and 44/55 (label 0/1 by age).
    from fairtune_hf.data.oasis1 import SPEC
    from fairtune_hf.data.splits import label_strata, stratified_split

    cells = [("0", "<=75", 91), ("1", "<=75", 45), ("0", ">75", 44), ("1", ">75", 55)]
    rows = [(label, age) for label, age, n in cells for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["label", "age"])
    patients = pd.Series([f"p{i:03d}" for i in range(len(frame))])
    split = stratified_split(
        patients, label_strata(frame, ["age"]), seed=0, fractions=SPEC.fractions
    )
    sizes = split.value_counts()
    assert abs(sizes["train"] - 188) <= 1
    assert abs(sizes["validation"] - 23) <= 1
    assert abs(sizes["test"] - 24) <= 1


# ----------------------------------------------------------------------------- Harvard-GF3300


def write_harvard(root, *, codes, summary):
    names = [b"Asian", b"Black or African American", b"White or Caucasian"]
    lines = []
    for i in range(180):
        use = ("Training", "Training", "Training", "Validation", "Test")[i // 12 % 5]
        race, male, sick = i % 3, i // 3 % 2, i // 6 % 2
        age = 60.4 if i % 4 else 59.9
        rnflt = np.random.default_rng(i).uniform(-2, 350, (20, 20))
        rnflt[0, :4] = (-2, -50, 350, 400)
        path = root / use / f"data_{i + 1:04d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            rnflt=rnflt,
            glaucoma=sick,
            age=age,
            male=male,
            race=race if codes else names[race].decode(),
        )
        lines.append(
            {
                "filename": path.name,
                "age": age,
                "gender": ("female", "male")[male],
                "race": ("asian", "black", "white")[race],
                "glaucoma": ("no", "yes")[sick],
                "use": use.lower(),
            }
        )
    if summary:
        pd.DataFrame(lines).to_csv(root / "data_summary.csv", index=False)
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("codes", "summary"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_harvard(tmp_path, codes, summary):
    lines = write_harvard(tmp_path, codes=codes, summary=summary)
    table = load_dataset_table("harvard_gf3300", tmp_path, image_size=20, split_rule="official")
    assert table.sensitive == "race"
    assert table.groups == ("Black", "Asian or White")
    told = lines.set_index(lines["filename"].str.removesuffix(".npz")).loc[table.frame["row_id"]]
    assert (table.labels == (told["glaucoma"] == "yes")).all()
    assert ((table.group_codes == 0) == (told["race"] == "black")).all()
    assert ((table.frame["sex"] == "M").to_numpy() == (told["gender"] == "male")).all()
    # The unrounded age is compared: 60.4 is above 60.
    assert ((table.frame["age"] == ">60").to_numpy() == (told["age"] == 60.4)).all()
    use = told["use"].replace({"training": "train"})
    assert (table.frame["split"].to_numpy() == use).all()
    assert table.images[0, 0, :4, 0].tolist() == [0, 0, 255, 255]
    stratified = rows_of("harvard_gf3300", tmp_path)
    assert stratified.frame["split"].value_counts().to_dict() == {
        "train": 144,
        "validation": 18,
        "test": 18,
    }


def test_harvard_race_rules(tmp_path):
    write_harvard(tmp_path, codes=True, summary=True)
    white = rows_of("harvard_gf3300", tmp_path, race_rule="white_vs_rest")
    assert white.raw.groups["race"] == ("White", "not White")
    assert (white.frame["race"] == "White").sum() == 60
    three = rows_of("harvard_gf3300", tmp_path, race_rule="three")
    assert three.frame["race"].value_counts().to_dict() == {"Asian": 60, "Black": 60, "White": 60}


# ----------------------------------------------------------------------------- CheXpert

OBSERVATIONS = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"]


@pytest.fixture
def chexpert(tmp_path):
    base = tmp_path / "CheXpert-v1.0-small"
    lines = []
    for i in range(240):
        part = "valid" if i >= 230 else "train"
        view = ("view1_frontal", "view2_lateral")[i % 2]
        path = f"CheXpert-v1.0-small/{part}/patient{i // 2:05d}/study1/{view}.jpg"
        lines.append(
            {
                "Path": path,
                "Sex": "Unknown" if i == 3 else ("Male", "Female")[i // 2 % 2],
                "Age": ("0", "60", "61", "90")[i // 4 % 4],
                "Frontal/Lateral": ("Frontal", "Lateral")[i % 2],
                "AP/PA": ("AP", "")[i % 2],
                "No Finding": ("1.0", "", "0.0", "-1.0")[i // 16 % 2 if i < 200 else i % 4],
                "Cardiomegaly": "-1.0",
            }
        )
        save_picture(tmp_path / path, i, mode="L")
    frame = pd.DataFrame(lines)
    frame.loc[7, "Age"] = None
    frame[:230].to_csv(base / "train.csv", index=False)
    frame[230:].to_csv(base / "valid.csv", index=False)
    return tmp_path


def test_chexpert(chexpert):
    table = load_dataset_table("chexpert", chexpert, image_size=SIDE, sensitive="age+sex")
    assert table.dropped == {"sex unknown": 1, "age unknown": 1}
    assert len(table) == 238
    # 0 = young M, 1 = old M, 2 = young F, 3 = old F.
    assert table.groups == ("<=60+M", ">60+M", "<=60+F", ">60+F")
    base = chexpert / "CheXpert-v1.0-small"
    source = pd.concat([pd.read_csv(base / f"{p}.csv") for p in ("train", "valid")])
    source.index = source["Path"].str.removeprefix("CheXpert-v1.0-small/")
    told = source.loc[table.frame["row_id"]]
    # Blank, 0 and uncertain are all label 0.
    assert (table.labels == (told["No Finding"] == 1)).all()
    assert {-1.0, 0.0, 1.0} <= set(told["No Finding"].dropna())
    assert told["No Finding"].isna().any()
    old = (told["Age"] > 60).to_numpy()
    assert (table.group_codes == old + 2 * (told["Sex"] == "Female").to_numpy()).all()
    assert table.frame["patient_id"].str.fullmatch(r"patient\d{5}").all()
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
    inside = load_dataset_table("chexpert", base, image_size=SIDE, sensitive="age+sex")
    assert inside.split_hash == table.split_hash
    frontal = rows_of("chexpert", chexpert, views="frontal")
    assert frontal.raw.dropped["lateral view"] == 118


def test_chexpert_race(chexpert, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CHEXPERT DEMO.xlsx was expected"):
        load_dataset_table("chexpert", chexpert, image_size=SIDE, sensitive="race")
    races = ["White, non-Hispanic", "Black or African American", "Asian", "Unknown", "Other"]
    lines = [(f"patient{i:05d}", races[i % 5]) for i in range(119)]
    path = chexpert / "CheXpert-v1.0-small" / "CHEXPERT DEMO.xlsx"
    pd.DataFrame(lines, columns=["PATIENT", "PRIMARY_RACE"]).to_excel(path, index=False)
    plan = rows_of("chexpert", chexpert)
    by_patient = plan.frame.drop_duplicates("patient_id").set_index("patient_id")["race"]
    assert by_patient["patient00000"] == "White"
    assert by_patient["patient00002"] == "Asian"
    assert by_patient["patient00003"] == ""
    assert by_patient["patient00119"] == ""
    known = rows_of("chexpert", chexpert, race_known=True)
    assert (known.frame["race"] != "").all()
    # 24 patients say "Unknown" (of one of them a row has no age) and one is not in the list.
    assert known.raw.dropped["race unknown"] == 2 * 24 - 1 + 2


# ----------------------------------------------------------------------------- NIH ChestX-ray14


def test_nih_official_split_and_findings(tmp_path):
    lines = []
    for i in range(160):
        lines.append(
            {
                "Image Index": f"{i // 2:08d}_{i % 2:03d}.png",
                "Finding Labels": ("No Finding", "Mass|Nodule", "Mass")[i // 2 % 3],
                "Follow-up #": 0,
                "Patient ID": i // 2,
                "Patient Age": ("058Y", "70", "414")[i // 6 % 3 if i < 150 else 0],
                "Patient Gender": "MF"[i // 6 % 2],
            }
        )
        save_picture(tmp_path / f"images_{1 + i % 3:03d}" / "images" / lines[-1]["Image Index"], i)
    frame = pd.DataFrame(lines)
    frame.to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    (tmp_path / "test_list.txt").write_text("\n".join(frame["Image Index"][120:]) + "\n")
    table = load_dataset_table("nih_chestxray14", tmp_path, image_size=SIDE, split_rule="official")
    assert set(table.frame.loc[table.frame["split"] == "test", "row_id"]) == set(
        frame["Image Index"][120:]
    )
    odd = (frame["Patient Age"] == "414").sum()
    assert (table.frame["age"] == "").sum() == odd
    assert (
        f"{odd} ages are not a number of years between 0 and 120 and count as unknown"
        in table.warnings
    )
    nodule = rows_of("nih_chestxray14", tmp_path, finding="Nodule")
    assert nodule.raw.label_names == ("no Nodule", "Nodule")
    assert nodule.frame["label"].sum() == frame["Finding Labels"].str.contains("Nodule").sum()
    with pytest.raises(ValueError, match=r"finding 'Nodul' is not known. Did you mean 'Nodule'"):
        rows_of("nih_chestxray14", tmp_path, finding="Nodul")


# ----------------------------------------------------------------------------- all of them


def test_metadata_only_reads_no_picture(tmp_path, fitzpatrick):
    for path in (fitzpatrick / "images").iterdir():
        path.unlink()
    summary = prepare("fitzpatrick17k", fitzpatrick, metadata_only=True, out=tmp_path / "out")
    assert summary.rows == 210
    assert summary.pictures is None
