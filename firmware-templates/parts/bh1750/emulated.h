#pragma once
#include "et_emulated.h"
namespace emulated {

// It measures 180 ms after it was set to continuous high resolution mode. `restart`: it loses its
// supply for a moment.
class Bh1750 : public Single {
 public:
  Bh1750() : on_(false), continuous_(false), since_(0) {}
  bool take(const uint8_t *bytes, int len, uint32_t now_ms) override {
    if (len != 1) return false;
    if (bytes[0] == 0x01) on_ = true;
    if (bytes[0] == 0x00) on_ = continuous_ = false;
    if (bytes[0] == 0x10 && on_) {
      continuous_ = true;
      since_ = now_ms;
    }
    return true;
  }
  bool give(uint8_t *bytes, int len, uint32_t now_ms) override {
    const int counts = continuous_ && now_ms - since_ >= 180 ? rounded(value_ * 1.2) : 0;
    memset(bytes, 0xFF, static_cast<size_t>(len));
    if (len > 0) bytes[0] = static_cast<uint8_t>(counts >> 8);
    if (len > 1) bytes[1] = static_cast<uint8_t>(counts);
    return true;
  }

 protected:
  void happen(const char *name) override {
    if (!strcmp(name, "restart") || !strcmp(name, "off")) on_ = continuous_ = false;
  }

 private:
  bool on_, continuous_;
  uint32_t since_;
};

}  // namespace emulated
