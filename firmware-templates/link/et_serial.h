// The serial link: `{…}*CCCC` up, `!body*CCCC` down, 115200 8N1.
#pragma once
#include <Arduino.h>
#include "et_core.h"

namespace et {

class SerialLink : public Port {
 public:
  SerialLink() : crc_(0xFFFF), len_(0), skip_(false) {}

  void put(char c) override {
    crc_ = crc16(crc_, static_cast<uint8_t>(c));
    Serial.write(static_cast<uint8_t>(c));
  }
  bool ready(Kind) override { return true; }
  void begin(Kind, uint32_t) override { crc_ = 0xFFFF; }
  void end() override {
    static const char digits[17] ET_FLASH = "0123456789ABCDEF";
    Serial.write('*');
    for (uint8_t shift = 16; shift;) {
      shift = static_cast<uint8_t>(shift - 4);
      Serial.write(et_flash_byte(&digits[crc_ >> shift & 15]));
    }
    Serial.write('\n');
  }
  // The gateway asks for what it misses.
  uint32_t acknowledged(uint32_t sent) override { return sent; }
  bool radio(const char *) override { return false; }

  // Takes what came; at most one command.
  void receive(Node &node, uint32_t now) {
    while (Serial.available()) {
      const char c = static_cast<char>(Serial.read());
      if (c == '\r') continue;
      if (c != '\n') {
        if (len_ == 0 && c != '!') skip_ = true;  // not for this node
        if (len_ == sizeof line_ - 1) skip_ = true;
        if (!skip_) line_[len_++] = c;
        if (skip_ && len_ == 0) {
          line_[0] = 0;  // what stood there is of an earlier line
          len_ = 1;
        }
        continue;
      }
      const uint8_t len = len_;
      const bool skip = skip_;
      len_ = 0;
      skip_ = false;
      if (len == 0 || line_[0] != '!') continue;
      if (skip || len < 6 || line_[len - 5] != '*') {
        line_[0] = 0;
        return node.command(line_, now, false);
      }
      uint16_t given = 0;
      for (uint8_t i = static_cast<uint8_t>(len - 4); i < len; i++) {
        const char digit = line_[i];
        const uint8_t nibble = digit >= '0' && digit <= '9'   ? static_cast<uint8_t>(digit - '0')
                               : digit >= 'A' && digit <= 'F' ? static_cast<uint8_t>(digit - 'A' + 10)
                                                              : 16;
        given = static_cast<uint16_t>(given << 4 | (nibble & 15));
      }
      line_[len - 5] = 0;
      const bool intact = crc16(line_ + 1, static_cast<size_t>(len - 6)) == given;
      return node.command(line_ + 1, now, intact);
    }
  }

 private:
  uint16_t crc_;
  char line_[BODY_MAX + 8];
  uint8_t len_;
  bool skip_;
};

}  // namespace et
