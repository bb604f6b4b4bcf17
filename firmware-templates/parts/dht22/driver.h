// Temperature and humidity sensor on one wire, every two seconds.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {

// In 0.1 °C and 0.1 %.
class Dht22 : public SingleWire {
 public:
  Dht22(uint8_t pin, uint16_t period) : SingleWire(pin, 2, period) {}
  value_t temperature(uint32_t now) {
    update(now);
    return temperature_;
  }
  value_t humidity(uint32_t now) {
    update(now);
    return humidity_;
  }

 private:
  void update(uint32_t now) {
    uint8_t bytes[5];
    if (!receive(now, bytes)) return;
    humidity_ = bytes[0] << 8 | bytes[1];
    temperature_ = (bytes[2] & 0x7F) << 8 | bytes[3];
    if (bytes[2] & 0x80) temperature_ = -temperature_;
  }
};

} }
