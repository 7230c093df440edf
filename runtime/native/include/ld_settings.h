/* Settings that every native form of the NMS and of the GFL decode takes: C ABI, no other header. */
#ifndef LD_SETTINGS_H
#define LD_SETTINGS_H

#include <stdint.h>

/* Before what a library exports: everything else is hidden. */
#ifdef _WIN32
#define LD_API __declspec(dllexport)
#else
#define LD_API __attribute__((visibility("default")))
#endif

/* Attributes of ld_deploy::ClusterDIoUNMS, version 1. Thresholds are compared with D in float32. */
typedef struct {
    double distance_exponent; /* the power is taken in float64 on the host */
    float iou_threshold;
    float vote_threshold;
    float vote_sigma;
    float score_threshold;
    int32_t max_detections;
} LdNmsSettings;

/* Attributes of ld_deploy::RotatedClusterNMS, version 1. Thresholds are compared with the IoU in float32. */
typedef struct {
    float iou_threshold; /* 0 to 1 */
    float vote_threshold;
    float vote_sigma;
    float score_threshold;
    int32_t max_detections;
} LdRotatedNmsSettings;

/* One level of a GFL head, per image: class_logits (classes, height, width), edge_logits (4 * bins, height, width). */
typedef struct {
    int32_t height;
    int32_t width;
    int32_t stride; /* priors are at (x * stride, y * stride) */
} LdLevel;

/* Further attributes of ld_deploy::GFLDetect: which (location, class) pairs reach the NMS. */
typedef struct {
    int32_t classes;
    int32_t bins;              /* reg_max + 1 */
    int32_t per_level_top_k;   /* best pairs of a level with score > score_threshold */
    int32_t pre_nms_top_k;     /* best of those over all levels */
    float canvas_height;       /* boxes are clipped to the canvas, in pixels */
    float canvas_width;
} LdCandidateRule;

#endif
