"""The page as a DICOM Secondary Capture image, which any viewer opens."""

from __future__ import annotations

from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from client import Window
from gateway.results import codes as terms
from gateway.results.answer import SOFTWARE, Answer, Reference
from gateway.results.identity import add_identity, add_moment, to_ascii
from gateway.results.page import draw_page
from gateway.results.uids import make_uid
from proto import __version__

SERIES_NUMBER = 9902
SERIES_DESCRIPTION = "StrokeServe page, research only"


def make_capture(answer: Answer, window: Window | None, now: datetime) -> Dataset:
    """Makes the image: 8 bits of grey, in a series of its own. ``window`` is of the slice that is drawn."""
    pixels = draw_page(answer, window)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = make_uid(answer, "page")
    image.SeriesInstanceUID = make_uid(answer, "page series")
    add_identity(image, answer.headers)
    add_moment(image, answer.headers, now, "InstanceCreation", "Content", "Series", "*OfSecondaryCapture")

    image.Modality = "OT"
    image.SeriesNumber = SERIES_NUMBER
    image.SeriesDescription = SERIES_DESCRIPTION
    image.ConversionType = "SYN"
    image.Manufacturer = SOFTWARE
    if model := to_ascii(answer.prediction.model, 64):
        image.ManufacturerModelName = model
    image.SoftwareVersions = __version__

    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.InstanceNumber = 1
    image.PatientOrientation = image.Laterality = None
    image.DerivationDescription = "Classification of the whole study by software, for research only"
    image.SourceImageSequence = [_refer(one) for one in answer.judged]
    image.BurnedInAnnotation = "NO"  # which means: nothing by which the patient could be known
    image.RecognizableVisualFeatures = "NO"

    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.WindowCenter, image.WindowWidth = 128, 256  # all grey levels as they are
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OB"
    return image


def _refer(one: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.instance.sop_class_uid
    item.ReferencedSOPInstanceUID = one.instance.sop_instance_uid
    if one.frames:
        item.ReferencedFrameNumber = list(one.frames)
    item.PurposeOfReferenceCodeSequence = [_to_item(terms.SOURCE_IMAGE)]
    return item


def _to_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
