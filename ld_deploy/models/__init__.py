"""What `custom_imports` registers with mmdet: heads, pre-processing, transforms, distillation and its explanation."""

from ld_deploy.distill.detector import DistilledDetector
from ld_deploy.distill.feature_terms import FeatureKD, PearsonKD
from ld_deploy.distill.terms import BinaryClassificationKD, ClassificationKD, IoULocalizationKD, LocalizationKD
from ld_deploy.explain.hook import ExplainDistillation
from ld_deploy.models.atss_head import ATSSDistributionHead
from ld_deploy.models.fcos_head import FCOSDistributionHead
from ld_deploy.models.gfl_head import GFLVotingHead
from ld_deploy.models.gflv2_head import GFLv2VotingHead
from ld_deploy.models.preprocessor import PadMeanPreprocessor
from ld_deploy.models.retina_head import RetinaDistributionHead
from ld_deploy.models.transforms import Letterbox
from ld_deploy.models.voc_dataset import VOCFormatDataset
from ld_deploy.models.voc_metric import VOCRangeMetric
from ld_deploy.quantization.detector import QuantizedDetector, QuantizedDistilledDetector
from ld_deploy.rotated.box_type import RotatedBoxes
from ld_deploy.rotated.coder import RotatedDeltaCoder, RotatedDistributionCoder
from ld_deploy.rotated.dota_dataset import DOTAFormatDataset, HRSCDataset, RotatedCocoDataset
from ld_deploy.rotated.dota_metric import DOTAMetric
from ld_deploy.rotated.gfl_head import RotatedGFLHead
from ld_deploy.rotated.losses import GaussianBoxLoss, TargetKLDLoss
from ld_deploy.rotated.offset_coder import OffsetCoder
from ld_deploy.rotated.priors import RotatedAnchorGenerator
from ld_deploy.rotated.retina_head import HullOverlaps, RotatedRetinaHead
from ld_deploy.rotated.terms import RotatedClassificationKD, RotatedLocalizationKD

__all__ = [
    "ATSSDistributionHead",
    "BinaryClassificationKD",
    "ClassificationKD",
    "DOTAFormatDataset",
    "DOTAMetric",
    "DistilledDetector",
    "ExplainDistillation",
    "FCOSDistributionHead",
    "FeatureKD",
    "GFLVotingHead",
    "GFLv2VotingHead",
    "GaussianBoxLoss",
    "HRSCDataset",
    "HullOverlaps",
    "IoULocalizationKD",
    "Letterbox",
    "LocalizationKD",
    "OffsetCoder",
    "PadMeanPreprocessor",
    "PearsonKD",
    "QuantizedDetector",
    "QuantizedDistilledDetector",
    "RetinaDistributionHead",
    "RotatedAnchorGenerator",
    "RotatedBoxes",
    "RotatedClassificationKD",
    "RotatedCocoDataset",
    "RotatedDeltaCoder",
    "RotatedDistributionCoder",
    "RotatedGFLHead",
    "RotatedLocalizationKD",
    "RotatedRetinaHead",
    "TargetKLDLoss",
    "VOCFormatDataset",
    "VOCRangeMetric",
]
