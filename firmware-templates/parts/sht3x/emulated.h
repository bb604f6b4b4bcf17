#pragma once
#include "et_emulated.h"
namespace emulated {

// It measures twice a second once it was asked to, and gives each measurement once. `corrupt` and
// `intact`: the checksum of the humidity is wrong, and right again. `restart`: it loses its supply for a moment.
class Sht3x : public Part {
 public:
  Sht3x() : temperature_(0), humidity_(0), periodic_(false), asked_(false), corrupt_(false), next_(0) {}
  bool take(const uint8_t *bytes, int len, uint32_t now_ms) override {
    if (len != 2) return false;
    const int command = bytes[0] << 8 | bytes[1];
    if (command == 0x2236) {
      periodic_ = true;
      next_ = now_ms + 16;
    }
    asked_ = command == 0xE000 && periodic_;
    return command == 0x2236 || command == 0xE000;
  }
  bool give(uint8_t *bytes, int len, uint32_t now_ms) override {
    if (!asked_ || len < 6 || static_cast<int32_t>(now_ms - next_) < 0) return false;
    asked_ = false;
    next_ += 500 * ((now_ms - next_) / 500 + 1);
    memset(bytes, 0xFF, static_cast<size_t>(len));
    word(bytes, (temperature_ + 45) / 175);
    word(bytes + 3, humidity_ / 100);
    if (corrupt_) bytes[5] = static_cast<uint8_t>(bytes[5] ^ 1);
    return true;
  }

 protected:
  void measure(const char *quantity, double value) override {
    (*quantity == 't' ? temperature_ : humidity_) = value;
  }
  void happen(const char *name) override {
    if (!strcmp(name, "restart") || !strcmp(name, "off")) periodic_ = false;
    if (!strcmp(name, "corrupt") || !strcmp(name, "intact")) corrupt_ = !strcmp(name, "corrupt");
  }

 private:
  static void word(uint8_t *bytes, double share) {
    const int raw = rounded(share * 65535);
    bytes[0] = static_cast<uint8_t>(raw >> 8);
    bytes[1] = static_cast<uint8_t>(raw);
    uint8_t crc = 0xFF;
    for (int bit = 0; bit < 16; bit++) {
      if (bit % 8 == 0) crc = static_cast<uint8_t>(crc ^ bytes[bit / 8]);
      crc = static_cast<uint8_t>(crc & 0x80 ? crc << 1 ^ 0x31 : crc << 1);
    }
    bytes[2] = crc;
  }

  double temperature_, humidity_;
  bool periodic_, asked_, corrupt_;
  uint32_t next_;
};

}  // namespace emulated
