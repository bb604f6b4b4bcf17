// A part that is emulated: what it puts on its pin, or answers on the I2C bus. Each part has one in
// `emulated.h` of its folder, a class in `emulated` with the name of its driver. The host board and
// the emulated Uno of the tests attach them.
//
// Plain C++11 without a call of any board. Times come as arguments.
#pragma once
#include <stdint.h>
#include <string.h>

namespace emulated {

class Part {
 public:
  Part() : off_(false), given_(false) {}
  virtual ~Part() {}

  // The quantity has this value from now on.
  void set(const char *quantity, double value) {
    given_ = true;
    measure(quantity, value);
  }
  // Something happens to it: `off` and `on`, and what its own test cases name.
  void event(const char *name) {
    if (!strcmp(name, "off") || !strcmp(name, "on")) off_ = !strcmp(name, "off");
    happen(name);
  }
  // It goes on following what the board says, until it is given a value of its own.
  void follow() { given_ = false; }
  bool off() const { return off_; }
  // Whether it was given a value.
  bool given() const { return given_; }

  // On an analog pin: the voltage of the next conversion, mV. `supply`: what the board measures up to.
  virtual double millivolts(double supply) {
    (void)supply;
    return 0;
  }
  // On a digital pin: its level.
  virtual bool level() { return false; }
  // On a digital pin: its answer to a start pulse, as the lengths in µs of high, low, high and so on;
  // how many they are, 90 at most.
  virtual int answer(uint8_t *spans) {
    (void)spans;
    return 0;
  }
  // On the I2C bus: takes these bytes; false if it does not acknowledge them.
  virtual bool take(const uint8_t *bytes, int len, uint32_t now_ms) {
    (void)bytes;
    (void)len;
    (void)now_ms;
    return false;
  }
  // On the I2C bus: gives so many bytes; false if it does not acknowledge its address.
  virtual bool give(uint8_t *bytes, int len, uint32_t now_ms) {
    (void)bytes;
    (void)len;
    (void)now_ms;
    return false;
  }

 protected:
  virtual void measure(const char *quantity, double value) {
    (void)quantity;
    (void)value;
  }
  virtual void happen(const char *name) { (void)name; }

 private:
  bool off_, given_;
};

// A sensor with one quantity.
class Single : public Part {
 public:
  Single() : value_(0) {}

 protected:
  void measure(const char *, double value) override { value_ = value; }
  double value_;
};

// A frame of 40 bits on one wire: four bytes, their sum, each bit a low and a long or short high.
inline int frame(const uint8_t *bytes, uint8_t *spans) {
  int edges = 0;
  const uint8_t sum = static_cast<uint8_t>(bytes[0] + bytes[1] + bytes[2] + bytes[3]);
  spans[edges++] = 30;
  spans[edges++] = 80;
  spans[edges++] = 80;
  for (int bit = 0; bit < 40; bit++) {
    const uint8_t byte = bit < 32 ? bytes[bit / 8] : sum;
    spans[edges++] = 50;
    spans[edges++] = byte >> (7 - bit % 8) & 1 ? 70 : 26;
  }
  spans[edges++] = 50;
  return edges;
}

// Rounded, as a part that counts does.
inline int rounded(double value) { return static_cast<int>(value < 0 ? value - 0.5 : value + 0.5); }

}  // namespace emulated
