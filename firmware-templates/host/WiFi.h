#pragma once
#include "Client.h"

enum { WIFI_STA = 1, WL_CONNECTED = 3, WL_DISCONNECTED = 6 };

struct WiFiClass {
  void mode(int) {}
  void begin(const char *ssid, const char *password);
  void disconnect();
  int status();
  int8_t RSSI();
};
extern WiFiClass WiFi;

class WiFiClient : public Client {
 public:
  WiFiClient() : socket_(-1), begin_(0), end_(0) {}
  int connect(const char *host, uint16_t port) override;
  size_t write(const uint8_t *from, size_t len) override;
  int available() override;
  int read() override;
  void stop() override;
  uint8_t connected() override;

 private:
  void fill();
  int socket_;
  uint8_t buffer_[1024];
  size_t begin_, end_;
};
