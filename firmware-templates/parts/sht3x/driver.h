// Temperature and humidity sensor that measures twice a second. Each word has a checksum; a frame with
// a wrong one counts as none.
#pragma once
#include "et_i2c.h"
namespace et { namespace parts {

class Sht3x : public OnBus {
 public:
  Sht3x(uint8_t address, uint16_t period) : OnBus(address, period), temperature_(NONE), humidity_(NONE), on_(false) {}
  void begin() {
    start();
    if (on_) delay(FIRST_MS);
  }
  // In 0.01 °C and 0.01 %.
  value_t temperature(uint32_t now) {
    update(now);
    return temperature_;
  }
  value_t humidity(uint32_t now) {
    update(now);
    return humidity_;
  }

 private:
  static const uint8_t FIRST_MS = 20;

  // Two measurements a second, of high repeatability.
  void start() {
    const uint8_t periodic[2] = {0x22, 0x36};
    on_ = i2c::write(address_, periodic, 2);
  }

  // CRC-8 with the polynomial 0x31, from 0xFF. The check value of BE EF is 92.
  static uint8_t crc8(const uint8_t *bytes) {
    uint8_t crc = 0xFF;
    for (uint8_t i = 0; i < 2; i++) {
      crc ^= bytes[i];
      for (uint8_t bit = 0; bit < 8; bit++) crc = static_cast<uint8_t>(crc & 0x80 ? crc << 1 ^ 0x31 : crc << 1);
    }
    return crc;
  }

  bool fetch(uint8_t *bytes) {
    const uint8_t fetch[2] = {0xE0, 0x00};
    return i2c::write(address_, fetch, 2) && i2c::read(address_, bytes, 6) && crc8(bytes) == bytes[2] &&
           crc8(bytes + 3) == bytes[5];
  }

  // Of the full scale in 1/65535.
  static value_t share(const uint8_t *bytes, int32_t full) {
    const uint32_t raw = static_cast<uint16_t>(bytes[0] << 8 | bytes[1]);
    return static_cast<value_t>((raw * static_cast<uint32_t>(full) + 32767) / 65535);
  }

  void update(uint32_t now) {
    if (!due(now)) return;
    uint8_t bytes[6];
    if (on_ && fetch(bytes)) {
      answered();
      temperature_ = share(bytes, 17500) - 4500;
      humidity_ = share(bytes + 3, 10000);
    } else if (!on_ || missed()) {
      temperature_ = humidity_ = NONE;
      start();
    }
  }

  value_t temperature_, humidity_;
  bool on_;
};

} }
