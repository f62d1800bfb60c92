/* The reference encoder of ../PROTOCOL.md; how to use it is said in aura_edge.h. */
#include "aura_edge.h"

#include <string.h>

#define TYPE_SAMPLES 1u
#define TYPE_DESCRIPTION 2u
#define SAMPLES_HEAD 8u
#define DESCRIPTION_HEAD 16u
#define SAMPLE_BYTES 12u

/* Compiles only where float is 32 bits wide. */
typedef char aura_edge_needs_32_bit_float[sizeof(float) == 4 ? 1 : -1];

static uint8_t *put_u16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)(value & 0xFFu);
    out[1] = (uint8_t)(value >> 8);
    return out + 2;
}

static uint8_t *put_u32(uint8_t *out, uint32_t value)
{
    out = put_u16(out, (uint16_t)(value & 0xFFFFu));
    return put_u16(out, (uint16_t)(value >> 16));
}

static uint8_t *put_f32(uint8_t *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put_u32(out, bits);
}

static uint16_t crc16(uint16_t crc, uint8_t byte)
{
    int bit;
    crc = (uint16_t)(crc ^ (uint16_t)((uint16_t)byte << 8));
    for (bit = 0; bit < 8; bit++) {
        crc = (uint16_t)((crc & 0x8000u) ? (((uint32_t)crc << 1) ^ 0x1021u) : ((uint32_t)crc << 1));
    }
    return crc;
}

size_t aura_edge_encode_description(const aura_edge_description *description, int restarted,
                                    uint8_t *out, size_t capacity)
{
    const size_t name_length = strlen(description->name);
    uint8_t *at = out;
    if (name_length > AURA_EDGE_MAX_NAME_BYTES || capacity < DESCRIPTION_HEAD + name_length) {
        return 0;
    }
    *at++ = (uint8_t)(AURA_EDGE_VERSION << 4 | TYPE_DESCRIPTION);
    *at++ = restarted ? 1u : 0u;
    *at++ = description->battery_percent;
    *at++ = (uint8_t)name_length;
    at = put_u32(at, description->rate_mhz);
    at = put_f32(at, description->acc_scale);
    at = put_f32(at, description->gyro_scale);
    memcpy(at, description->name, name_length);
    return DESCRIPTION_HEAD + name_length;
}

size_t aura_edge_encode_samples(uint16_t index, uint32_t time_us, const int16_t *axes, size_t n,
                                uint8_t *out, size_t capacity)
{
    uint8_t *at = out;
    size_t i;
    if (n == 0 || n > AURA_EDGE_MAX_SAMPLES || capacity < SAMPLES_HEAD + n * SAMPLE_BYTES) {
        return 0;
    }
    *at++ = (uint8_t)(AURA_EDGE_VERSION << 4 | TYPE_SAMPLES);
    *at++ = (uint8_t)n;
    at = put_u16(at, index);
    at = put_u32(at, time_us);
    for (i = 0; i < n * AURA_EDGE_AXES; i++) {
        at = put_u16(at, (uint16_t)axes[i]);
    }
    return (size_t)(at - out);
}

size_t aura_edge_samples_that_fit(size_t payload_bytes)
{
    size_t n;
    if (payload_bytes < SAMPLES_HEAD) {
        return 0;
    }
    n = (payload_bytes - SAMPLES_HEAD) / SAMPLE_BYTES;
    return n < AURA_EDGE_MAX_SAMPLES ? n : AURA_EDGE_MAX_SAMPLES;
}

size_t aura_edge_frame(const uint8_t *message, size_t length, uint8_t *out, size_t capacity)
{
    uint16_t crc = 0xFFFFu;
    size_t code = 0; /* where the count of the block in the making stands */
    size_t at = 1;
    size_t i;
    if (length == 0 || length > AURA_EDGE_MAX_MESSAGE || capacity < AURA_EDGE_FRAME_BYTES(length)) {
        return 0;
    }
    for (i = 0; i < length + 2u; i++) {
        uint8_t byte;
        if (i < length) {
            byte = message[i];
            crc = crc16(crc, byte);
        } else {
            byte = (uint8_t)(i == length ? (crc & 0xFFu) : (crc >> 8));
        }
        if (at - code == 255u) { /* 254 bytes without a zero: the block is full */
            out[code] = 255u;
            code = at++;
        }
        if (byte == 0) {
            out[code] = (uint8_t)(at - code);
            code = at++;
        } else {
            out[at++] = byte;
        }
    }
    out[code] = (uint8_t)(at - code);
    out[at++] = 0;
    return at;
}
