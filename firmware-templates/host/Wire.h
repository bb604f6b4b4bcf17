// The I2C bus of the host board: the emulated parts that are attached to it.
#pragma once
#include <stddef.h>
#include <stdint.h>

class TwoWire {
 public:
  TwoWire() : address_(0), len_(0), at_(0) {}
  bool begin() { return true; }
  void setTimeOut(uint16_t) {}
  void beginTransmission(uint8_t address);
  size_t write(uint8_t byte);
  uint8_t endTransmission();
  uint8_t requestFrom(uint8_t address, uint8_t len);
  int read();

 private:
  uint8_t address_, buffer_[32];
  uint8_t len_, at_;
};
extern TwoWire Wire;
