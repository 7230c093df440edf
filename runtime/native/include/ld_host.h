/* The host library behind a C ABI: libld_deploy_host, loaded by ld_runtime.native with ctypes. */
#ifndef LD_HOST_H
#define LD_HOST_H

#include "ld_settings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Score-voting Cluster-DIoU-NMS of one image. boxes (count, 4), scores (count), labels (count), any order. The outputs
 * have room for max_detections rows. Returns how many were written, or -1 when memory ran out. */
LD_API int32_t ld_cluster_diou_nms(const float* boxes, const float* scores, const int64_t* labels, int32_t count,
                                   const LdNmsSettings* settings, float* out_boxes, float* out_scores,
                                   int64_t* out_labels);

/* Score-voting Cluster-NMS of the rotated boxes of one image: boxes (count, 5), cx cy w h angle, the rest as above. */
LD_API int32_t ld_rotated_cluster_nms(const float* boxes, const float* scores, const int64_t* labels, int32_t count,
                                      const LdRotatedNmsSettings* settings, float* out_boxes, float* out_scores,
                                      int64_t* out_labels);

/* The candidates of a GFL head for the NMS, of one image: class_logits[l] (classes, h, w) and edge_logits[l]
 * (4 * bins, h, w), float32, C order, fewer than 2^32 - 1 class logits in all. Logit descending, then lower level, then
 * lower location * classes + class. The outputs have room for pre_nms_top_k rows. Return value as above. */
LD_API int32_t ld_gfl_candidates(const float* const* class_logits, const float* const* edge_logits,
                                 const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule,
                                 float score_threshold, float* out_boxes, float* out_scores, int64_t* out_labels);

/* From the maps of a GFL head to the detections of one image: the two above in one. */
LD_API int32_t ld_gfl_detect(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
                             int32_t num_levels, const LdCandidateRule* rule, const LdNmsSettings* settings,
                             float* out_boxes, float* out_scores, int64_t* out_labels);

/* The same of a head of rotated boxes: edge_logits[l] (5 * bins, h, w), boxes of five numbers. */
LD_API int32_t ld_rotated_gfl_candidates(const float* const* class_logits, const float* const* edge_logits,
                                         const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule,
                                         float score_threshold, float* out_boxes, float* out_scores,
                                         int64_t* out_labels);

LD_API int32_t ld_rotated_gfl_detect(const float* const* class_logits, const float* const* edge_logits,
                                     const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule,
                                     const LdRotatedNmsSettings* settings, float* out_boxes, float* out_scores,
                                     int64_t* out_labels);

#ifdef __cplusplus
}
#endif
#endif
