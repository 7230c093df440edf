"""What `custom_imports` registers with mmdet: heads, pre-processing, transforms, distillation."""

from ld_deploy.distill.detector import DistilledDetector
from ld_deploy.distill.feature_terms import FeatureKD, PearsonKD
from ld_deploy.distill.terms import BinaryClassificationKD, ClassificationKD, IoULocalizationKD, LocalizationKD
from ld_deploy.models.gfl_head import GFLVotingHead
from ld_deploy.models.preprocessor import PadMeanPreprocessor
from ld_deploy.models.transforms import Letterbox
from ld_deploy.models.voc_dataset import VOCFormatDataset

__all__ = [
    "BinaryClassificationKD",
    "ClassificationKD",
    "DistilledDetector",
    "FeatureKD",
    "GFLVotingHead",
    "IoULocalizationKD",
    "Letterbox",
    "LocalizationKD",
    "PadMeanPreprocessor",
    "PearsonKD",
    "VOCFormatDataset",
]
