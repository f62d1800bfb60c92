/* Arduino Nano 33 BLE Sense Rev2 -> aura-edge, over BLE and over USB at once.
 *
 * NEVER RUN ON HARDWARE BY US: written after the libraries' sources, compiled and run only against
 * stand-ins for them (tests/firmware_bridge/test_firmware.py). Tell us what you find.
 *
 * 1. Copy aura_edge.h and aura_edge.c from the folder above next to this file.
 * 2. Boards manager: "Arduino Mbed OS Nano Boards". Library manager: "ArduinoBLE" and
 *    "Arduino_BMI270_BMM150".
 * 3. Upload, then: edge-run --device ble   or   edge-run --device serial
 *
 * The library sets the BMI270 to 100 Hz, +-4 g and +-2000 deg/s, and hands out floats that are the
 * sensor's 16 bits divided by 8192 and 16.384 (its BMI270.cpp); here they are made integers again.
 */
#include <ArduinoBLE.h>
#include <Arduino_BMI270_BMM150.h>

#include "aura_edge.h"

/* One notification of 4 samples has 56 bytes, hence an MTU of 59 at least: computers and phones
 * grant it. If messages are reported as "cut short", set this to 1. */
static const size_t SAMPLES_PER_MESSAGE = 4;

static const float ACC_LSB_PER_G = 8192.0f;
static const float GYRO_LSB_PER_DPS = 16.384f;
static const uint32_t PERIOD_US = 10000;

static const aura_edge_description DESCRIPTION = {
    "Nano 33 BLE Sense Rev2",
    100000,                                /* 100 Hz in mHz */
    9.80665f / 8192.0f,                    /* m/s^2 per LSB */
    3.14159265f / 180.0f / 16.384f,        /* rad/s per LSB */
    AURA_EDGE_UNKNOWN_BATTERY,
};

static BLEService service(AURA_EDGE_SERVICE_UUID);
static BLECharacteristic data(AURA_EDGE_DATA_UUID, BLENotify,
                              AURA_EDGE_SAMPLES_BYTES(SAMPLES_PER_MESSAGE));
static BLECharacteristic description(AURA_EDGE_DESCRIPTION_UUID, BLERead,
                                     AURA_EDGE_DESCRIPTION_BYTES(AURA_EDGE_MAX_NAME_BYTES));
static BLECharacteristic control(AURA_EDGE_CONTROL_UUID, BLEWrite, 1);

static int16_t axes[SAMPLES_PER_MESSAGE * AURA_EDGE_AXES];
static size_t filled = 0;       /* samples in axes */
static uint16_t first_index = 0; /* of the first of them */
static uint32_t first_us = 0;
static uint32_t last_us = 0;
static uint32_t described_us = 0;
static bool any_sample = false;
static bool streaming = false;  /* over BLE */

static int16_t to_lsb(float value, float lsb_per_unit)
{
    const long lsb = lroundf(value * lsb_per_unit);
    return (int16_t)(lsb > 32767 ? 32767 : lsb < -32768 ? -32768 : lsb);
}

static void send_serial(const uint8_t *message, size_t length)
{
    uint8_t frame[AURA_EDGE_FRAME_BYTES(AURA_EDGE_SAMPLES_BYTES(SAMPLES_PER_MESSAGE)
                                        + AURA_EDGE_MAX_NAME_BYTES)];
    const size_t n = aura_edge_frame(message, length, frame, sizeof frame);
    if (Serial && n > 0) {
        Serial.write(frame, n);
    }
}

static void describe(int restarted)
{
    uint8_t message[AURA_EDGE_DESCRIPTION_BYTES(AURA_EDGE_MAX_NAME_BYTES)];
    const size_t n =
        aura_edge_encode_description(&DESCRIPTION, restarted, message, sizeof message);
    send_serial(message, n);
    if (restarted) {
        /* What is read over BLE starts with the connection. */
        message[1] = 0;
        description.writeValue(message, (int)n);
    }
}

static void send_samples(void)
{
    uint8_t message[AURA_EDGE_SAMPLES_BYTES(SAMPLES_PER_MESSAGE)];
    const size_t n =
        aura_edge_encode_samples(first_index, first_us, axes, filled, message, sizeof message);
    if (n == 0) {
        return; /* nothing has been filled in */
    }
    if (streaming) {
        data.writeValue(message, (int)n);
    }
    send_serial(message, n);
    first_index = (uint16_t)(first_index + filled);
    filled = 0;
}

static void take_sample(uint32_t now_us)
{
    float ax, ay, az, gx, gy, gz;
    int16_t *const at = axes + filled * AURA_EDGE_AXES;
    if (!IMU.readAcceleration(ax, ay, az) || !IMU.readGyroscope(gx, gy, gz)) {
        return;
    }
    at[0] = to_lsb(ax, ACC_LSB_PER_G);
    at[1] = to_lsb(ay, ACC_LSB_PER_G);
    at[2] = to_lsb(az, ACC_LSB_PER_G);
    at[3] = to_lsb(gx, GYRO_LSB_PER_DPS);
    at[4] = to_lsb(gy, GYRO_LSB_PER_DPS);
    at[5] = to_lsb(gz, GYRO_LSB_PER_DPS);
    if (filled == 0) {
        first_us = now_us;
    }
    filled++;
    last_us = now_us;
    any_sample = true;
}

void setup()
{
    Serial.begin(115200);
    if (!IMU.begin() || !BLE.begin()) {
        for (;;) {
            Serial.println("no IMU or no BLE");
            delay(1000);
        }
    }
    BLE.setLocalName("aura-edge");
    BLE.setDeviceName("aura-edge");
    BLE.setAdvertisedService(service);
    service.addCharacteristic(data);
    service.addCharacteristic(description);
    service.addCharacteristic(control);
    BLE.addService(service);
    Serial.write((uint8_t)0);
    describe(1);
    described_us = micros();
    BLE.advertise();
}

void loop()
{
    BLE.poll();
    if (control.written()) {
        streaming = control.valueLength() > 0 && control.value()[0] == AURA_EDGE_START;
    }
    if (!BLE.connected()) {
        streaming = false;
    }
    if (IMU.accelerationAvailable()) {
        const uint32_t now_us = micros();
        /* The library does not count samples that were overwritten before they were read; the
         * time since the last one tells how many. */
        const uint32_t missed =
            any_sample ? (now_us - last_us + PERIOD_US / 2) / PERIOD_US : 1;
        if (missed > 1) {
            send_samples(); /* the samples of one message follow each other without a hole */
            first_index = (uint16_t)(first_index + missed - 1);
        }
        take_sample(now_us);
        if (filled == SAMPLES_PER_MESSAGE) {
            send_samples();
        }
    }
    if (micros() - described_us >= 1000000u) {
        described_us += 1000000u;
        describe(0);
    }
}
