/* CUDA kernels behind a C ABI: no TensorRT, no torch. All pointers are device memory but the settings, the levels and
 * the arrays of map pointers.
 *
 * A call puts kernels and a memset on `stream` and returns: nothing is allocated, copied to the host or waited for, so
 * it can be captured in a graph. Results are the same in every run (ties: lower index first). Every loop is bounded,
 * whatever the memory holds. Return 0, or a cudaError_t: of a launch, or cudaErrorInvalidValue for sizes beyond the
 * limits below. Any workspace alignment will do. A batch of 0 does nothing; one of no candidates writes padding.
 */
#ifndef LD_KERNELS_H
#define LD_KERNELS_H

#include <stddef.h>

#include "ld_settings.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st* LdStream; /* cudaStream_t */

typedef enum { LD_FLOAT32 = 0, LD_FLOAT16 = 1 } LdType;

enum {
    LD_MAX_LEVELS = 8,
    LD_MAX_BATCH = 65535,      /* a grid's limit */
    LD_MAX_CANDIDATES = 65536, /* of an image: their bitsets lie in shared memory */
};

/* Outputs of all ops, padded: boxes 0, scores 0, labels -1. */
typedef struct {
    int32_t* num_detections; /* (batch) */
    float* boxes;            /* (batch, max_detections, 4), x1 y1 x2 y2; rotated (..., 5), cx cy w h angle */
    float* scores;           /* (batch, max_detections) */
    int64_t* labels;         /* (batch, max_detections) */
} LdDetections;

/* Bytes of workspace for `batch` images of `candidates` rows: about candidates^2 / 8 an image. */
LD_API size_t ld_cluster_diou_nms_workspace(int32_t batch, int32_t candidates);

/* boxes (batch, candidates, 4) and scores (batch, candidates) of `type`, labels int64 (batch, candidates), any order. */
LD_API int32_t ld_cluster_diou_nms_enqueue(const void* boxes, const void* scores, LdType type, const int64_t* labels,
                                           int32_t batch, int32_t candidates, const LdNmsSettings* settings,
                                           const LdDetections* detections, void* workspace, LdStream stream);

/* The same of rotated boxes (batch, candidates, 5), cx cy w h angle, in pixels and radians. */
LD_API size_t ld_rotated_cluster_nms_workspace(int32_t batch, int32_t candidates);

LD_API int32_t ld_rotated_cluster_nms_enqueue(const void* boxes, const void* scores, LdType type,
                                              const int64_t* labels, int32_t batch, int32_t candidates,
                                              const LdRotatedNmsSettings* settings, const LdDetections* detections,
                                              void* workspace, LdStream stream);

LD_API size_t ld_gfl_detect_workspace(int32_t batch, const LdLevel* levels, int32_t num_levels,
                                      const LdCandidateRule* rule);

/* class_logits[l] (batch, classes, h, w) and edge_logits[l] (batch, 4 * bins, h, w) of `type`; at most 2^31 - 1025
 * class logits an image. Its candidates: min(pre_nms_top_k, sum over levels of min(per_level_top_k, classes * h * w)). */
LD_API int32_t ld_gfl_detect_enqueue(const void* const* class_logits, const void* const* edge_logits, LdType type,
                                     int32_t batch, const LdLevel* levels, int32_t num_levels,
                                     const LdCandidateRule* rule, const LdNmsSettings* settings,
                                     const LdDetections* detections, void* workspace, LdStream stream);

/* The same of a head of rotated boxes: edge_logits[l] (batch, 5 * bins, h, w). */
LD_API size_t ld_rotated_gfl_detect_workspace(int32_t batch, const LdLevel* levels, int32_t num_levels,
                                              const LdCandidateRule* rule);

LD_API int32_t ld_rotated_gfl_detect_enqueue(const void* const* class_logits, const void* const* edge_logits,
                                             LdType type, int32_t batch, const LdLevel* levels, int32_t num_levels,
                                             const LdCandidateRule* rule, const LdRotatedNmsSettings* settings,
                                             const LdDetections* detections, void* workspace, LdStream stream);

#ifdef __cplusplus
}
#endif
#endif
