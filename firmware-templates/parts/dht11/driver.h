// Temperature and humidity sensor on one wire, once a second.
#pragma once
#include "et_digital.h"
namespace et { namespace parts {

// In 0.1 °C and 0.1 %.
class Dht11 : public SingleWire {
 public:
  Dht11(uint8_t pin, uint16_t period) : SingleWire(pin, 18, period) {}
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
    humidity_ = bytes[0] * 10 + bytes[1];
    temperature_ = bytes[2] * 10 + (bytes[3] & 0x7F);
    if (bytes[3] & 0x80) temperature_ = -temperature_;
  }
};

} }
