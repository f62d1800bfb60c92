/* aura_edge: what a wearable sends to aura-edge.
 *
 * The format is specified in ../PROTOCOL.md; this is its reference encoder. C99, no allocation, no
 * state, no dependency but the three headers below. Every function writes into a buffer of yours
 * and returns the bytes written, or 0 when they do not fit or an argument is out of range.
 *
 * Over BLE, one message is the value of one notification:
 *
 *     uint8_t message[20];
 *     size_t n = aura_edge_encode_samples(index, time_us, axes, 1, message, sizeof message);
 *     notify(message, n);
 *     index += 1;
 *
 * Over a serial line, a message goes out as a frame:
 *
 *     uint8_t frame[AURA_EDGE_FRAME_BYTES(sizeof message)];
 *     size_t m = aura_edge_frame(message, n, frame, sizeof frame);
 *     uart_write(frame, m);
 *
 * Send a description at the start (with restarted = 1) and every second after (restarted = 0): it
 * holds the scales without which the samples mean nothing. Over BLE it is also the value of the
 * description characteristic. On a serial line send one byte 0x00 first of all, which ends
 * whatever the bootloader printed.
 *
 * The index counts samples, also those that you had to drop: a sample that was measured and not
 * sent is a lost one, and the receiver can only know so from the index. The time is that of the
 * message's FIRST sample, by a clock of yours in microseconds that wraps at 2^32; take it in the
 * data-ready interrupt if you can, as the sensor's own pace is what the receiver wants to know.
 */
#ifndef AURA_EDGE_H
#define AURA_EDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AURA_EDGE_VERSION 1

#define AURA_EDGE_SERVICE_UUID "2ce05540-5d7b-440d-a438-daadccebf5ff"
#define AURA_EDGE_DATA_UUID "2ce05541-5d7b-440d-a438-daadccebf5ff"        /* notify */
#define AURA_EDGE_DESCRIPTION_UUID "2ce05542-5d7b-440d-a438-daadccebf5ff" /* read */
#define AURA_EDGE_CONTROL_UUID "2ce05543-5d7b-440d-a438-daadccebf5ff"     /* write */
#define AURA_EDGE_START 0x01
#define AURA_EDGE_STOP 0x00

#define AURA_EDGE_AXES 6           /* ax ay az gx gy gz */
#define AURA_EDGE_MAX_SAMPLES 42   /* in one message */
#define AURA_EDGE_MAX_NAME_BYTES 32
#define AURA_EDGE_MAX_MESSAGE 512
#define AURA_EDGE_UNKNOWN_BATTERY 255

/* Bytes of a message with n samples, and of a description with a name of that length. */
#define AURA_EDGE_SAMPLES_BYTES(n) (8u + 12u * (n))
#define AURA_EDGE_DESCRIPTION_BYTES(name_length) (16u + (name_length))

/* Most bytes that a message of this length takes as a frame: CRC, COBS, delimiter. */
#define AURA_EDGE_FRAME_BYTES(length) ((length) + 2u + ((length) + 2u) / 254u + 1u + 1u)

typedef struct {
    const char *name;        /* UTF-8, ends with NUL, at most AURA_EDGE_MAX_NAME_BYTES long */
    uint32_t rate_mhz;       /* nominal sample rate in millihertz: 100 Hz is 100000 */
    float acc_scale;         /* m/s^2 per LSB: for +-4 g in 16 bits 4 * 9.80665 / 32768 */
    float gyro_scale;        /* rad/s per LSB: for +-2000 deg/s 2000 * pi / 180 / 32768; 0: none */
    uint8_t battery_percent; /* 0 to 100, or AURA_EDGE_UNKNOWN_BATTERY */
} aura_edge_description;

/* A description. restarted: whether index and clock began anew since the last message. */
size_t aura_edge_encode_description(const aura_edge_description *description, int restarted,
                                    uint8_t *out, size_t capacity);

/* Samples, oldest first; axes holds n times ax ay az gx gy gz in LSB (gx gy gz 0 without a
 * gyroscope). A message of one sample has 20 bytes: the notification of the smallest MTU. */
size_t aura_edge_encode_samples(uint16_t index, uint32_t time_us, const int16_t *axes, size_t n,
                                uint8_t *out, size_t capacity);

/* Samples that a message of this many bytes holds; a notification has the MTU less 3. */
size_t aura_edge_samples_that_fit(size_t payload_bytes);

/* A message as a frame for a serial line: CRC-16/CCITT-FALSE, COBS, delimiter 0x00. The two
 * buffers must not overlap. */
size_t aura_edge_frame(const uint8_t *message, size_t length, uint8_t *out, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
