// An Arduino Uno in simavr: runs a sketch, gives it sensors, and carries its serial line.
//
//     avrnode FIRMWARE.elf --trace TRACE.csv --seconds N [--script FILE]   flat out, to stdout
//     avrnode FIRMWARE.elf --trace TRACE.csv --pty                         in real time, on a pty
//
// A flat-out run ends with `reset MS` for each reset by the watchdog, and with `stack N at PC`: the
// lowest address that the stack reached, and where.
//
// The trace has lines `ms,A0,A1,A2,swing,temperature,humidity` in mV, mV, mV, mV, 0.1 degrees and
// 0.1 %; each holds from its time on, and the last for ever. `swing` is added to and taken off A2
// from one conversion to the next. A battery of 3.8 V is at A3. The DHT11 is on pin 2; outputs are
// pins 5 and 7. The script has lines `ms text`: what is sent to the node, and when; `ms hang` makes it
// hang until its watchdog resets it, and so does SIGUSR1. With --pty the name of the line is printed first. A pty has no
// DTR, so opening it does not reset the node.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_adc.h>
#include <simavr/avr_ioport.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_irq.h>
#include <simavr/sim_time.h>

#define TRACE_MAX 4096
#define QUEUE 4096
#define RESETS_MAX 64

static struct { long ms, value[6]; } trace[TRACE_MAX];
static int trace_len, trace_at;
static char *script_line[1024];
static long script_ms[1024];
static int script_len, script_at;

static avr_t *avr;
static avr_irq_t *adc[4], *dht, *uart_in;
static int upward;
static unsigned char queue[QUEUE];
static unsigned queue_head, queue_len;
static int may_send = 1;
static int pty = -1;
static unsigned lowest = 0xFFFF, lowest_at;

static long now_ms(void) { return (long)(avr->cycle / (avr->frequency / 1000)); }

static const long *values(void) {
  while (trace_at + 1 < trace_len && trace[trace_at + 1].ms <= now_ms()) trace_at++;
  return trace[trace_at].value;
}

// Before each conversion the voltages are those of this moment.
static void converting(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  const long *v = values();
  upward = !upward;
  avr_raise_irq(adc[0], v[0]);
  avr_raise_irq(adc[1], v[1]);
  avr_raise_irq(adc[2], v[2] + (upward ? v[3] / 2 : -v[3] / 2));
  avr_raise_irq(adc[3], 3800);
}

// ---- DHT11 ------------------------------------------------------------------------------------

static unsigned char dht_us[90];
static int dht_edges, dht_edge, dht_level, dht_output;
static avr_cycle_count_t low_since;

static avr_cycle_count_t dht_step(avr_t *a, avr_cycle_count_t when, void *param) {
  (void)param;
  if (dht_edge == dht_edges) {
    avr_raise_irq(dht, 1);
    return 0;
  }
  dht_level = !dht_level;
  avr_raise_irq(dht, dht_level);
  return when + avr_usec_to_cycles(a, dht_us[dht_edge++]);
}

static void dht_direction(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)param;
  const int output = value >> 2 & 1;
  if (output == dht_output) return;
  dht_output = output;
  if (output) {
    low_since = avr->cycle;
    return;
  }
  if (avr->cycle - low_since < avr_usec_to_cycles(avr, 10000)) return;
  const long *v = values();
  unsigned char bytes[5] = {v[5] / 10, v[5] % 10, labs(v[4]) / 10, labs(v[4]) % 10 | (v[4] < 0 ? 0x80 : 0), 0};
  bytes[4] = bytes[0] + bytes[1] + bytes[2] + bytes[3];
  dht_edges = dht_edge = 0;
  dht_us[dht_edges++] = 80;
  dht_us[dht_edges++] = 80;
  for (int bit = 0; bit < 40; bit++) {
    dht_us[dht_edges++] = 50;
    dht_us[dht_edges++] = bytes[bit / 8] >> (7 - bit % 8) & 1 ? 70 : 26;
  }
  dht_us[dht_edges++] = 50;
  dht_level = 1;
  avr_raise_irq(dht, 1);
  avr_cycle_timer_register_usec(avr, 30, dht_step, NULL);
}

// ---- serial line --------------------------------------------------------------------------------

static void said(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)param;
  const unsigned char byte = value;
  if (pty < 0) {
    putchar(byte);
  } else if (write(pty, &byte, 1) < 0 && errno != EAGAIN && errno != EIO) {
    perror("write");
  }
}

static void xon(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  may_send = 1;
}

static void xoff(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  may_send = 0;
}

static void feed(const unsigned char *bytes, size_t len) {
  for (size_t i = 0; i < len && queue_len < QUEUE; i++) queue[(queue_head + queue_len++) % QUEUE] = bytes[i];
}

// One byte takes 87 us at 115200 Bd.
static avr_cycle_count_t serial_step(avr_t *a, avr_cycle_count_t when, void *param) {
  (void)param;
  if (queue_len && may_send) {
    const unsigned char byte = queue[queue_head];
    queue_head = (queue_head + 1) % QUEUE;
    queue_len--;
    avr_raise_irq(uart_in, byte);
  }
  return when + avr_usec_to_cycles(a, 87);
}

// ---- hanging ------------------------------------------------------------------------------------

static avr_flashaddr_t hung_at;
static unsigned char healthy[2];
static int hung;
static volatile sig_atomic_t hang_asked;
static long reset_ms[RESETS_MAX];
static int resets;

// The instruction that is next becomes a jump to itself. Interrupts go on where they were on, and do
// not feed the watchdog.
static void hang(void) {
  if (hung) return;
  hung = 1;
  hung_at = avr->pc;
  memcpy(healthy, avr->flash + hung_at, 2);
  memcpy(avr->flash + hung_at, "\xff\xcf", 2);  // rjmp .-2
}

static void ask_to_hang(int number) {
  (void)number;
  hang_asked = 1;
}

// simavr's watchdog resets by a run callback of its own. It has set WDRF then, and left the watchdog
// on at its shortest, as silicon does; what is lost is all timers of the simulation, ours too.
static void was_reset(void) {
  if (hung) memcpy(avr->flash + hung_at, healthy, 2);
  hung = 0;
  if (resets < RESETS_MAX) reset_ms[resets++] = now_ms();
  dht_edge = dht_edges = dht_output = 0;
  avr_cycle_timer_register_usec(avr, 87, serial_step, NULL);
}

static void output(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  if (pty < 0) printf("pin %ld %u\n", (long)param, value & 1);
}

// The node is never asleep on the host's clock: main paces it.
static void no_sleep(avr_t *a, avr_cycle_count_t cycles) {
  (void)a;
  (void)cycles;
}

static void load_trace(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) exit(fprintf(stderr, "%s cannot be read\n", path));
  char line[256];
  while (fgets(line, sizeof line, file) && trace_len < TRACE_MAX) {
    long *v = trace[trace_len].value;
    if (sscanf(line, "%ld,%ld,%ld,%ld,%ld,%ld,%ld", &trace[trace_len].ms, v, v + 1, v + 2, v + 3, v + 4, v + 5) == 7)
      trace_len++;
  }
  fclose(file);
}

static void load_script(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) exit(fprintf(stderr, "%s cannot be read\n", path));
  char line[512];
  while (fgets(line, sizeof line, file) && script_len < 1024) {
    char *text;
    script_ms[script_len] = strtol(line, &text, 10);
    script_line[script_len++] = strdup(text + 1);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  long seconds = 0;
  int real = 0;
  for (int i = 2; i < argc; i++) {
    if (!strcmp(argv[i], "--trace")) load_trace(argv[++i]);
    else if (!strcmp(argv[i], "--script")) load_script(argv[++i]);
    else if (!strcmp(argv[i], "--seconds")) seconds = atol(argv[++i]);
    else if (!strcmp(argv[i], "--pty")) real = 1;
  }
  if (argc < 2 || !trace_len || (!real && !seconds)) return fprintf(stderr, "usage: see avrnode.c\n"), 64;
  elf_firmware_t firmware = {{0}};
  if (elf_read_firmware(argv[1], &firmware)) return fprintf(stderr, "%s is no firmware\n", argv[1]), 1;
  avr = avr_make_mcu_by_name("atmega328p");
  avr_init(avr);
  firmware.frequency = 16000000;
  avr_load_firmware(avr, &firmware);
  avr->frequency = 16000000;
  avr->vcc = avr->avcc = avr->aref = 5000;
  avr->sleep = no_sleep;
  avr->log = LOG_ERROR;

  uint32_t flags = 0;
  avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
  flags &= ~(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP);
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), said, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), xon, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), xoff, NULL);
  uart_in = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  avr_cycle_timer_register_usec(avr, 87, serial_step, NULL);
  for (int i = 0; i < 4; i++) adc[i] = avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + i);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_OUT_TRIGGER), converting, NULL);
  converting(NULL, 0, NULL);
  dht = avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), 2);
  avr_raise_irq(dht, 1);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), IOPORT_IRQ_DIRECTION_ALL), dht_direction, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), 7), output, (void *)7L);

  int slave = -1;
  if (real) {
    char name[128];
    struct termios raw;
    if (openpty(&pty, &slave, name, NULL, NULL)) return perror("openpty"), 1;
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    fcntl(pty, F_SETFL, O_NONBLOCK);
    printf("%s\n", name);
    fflush(stdout);
  }
  const avr_run_t run = avr->run;
  signal(SIGUSR1, ask_to_hang);
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long ms = 0; !seconds || ms < seconds * 1000; ms++) {
    while (script_at < script_len && script_ms[script_at] <= ms) {
      if (!strcmp(script_line[script_at], "hang\n")) hang();
      else feed((const unsigned char *)script_line[script_at], strlen(script_line[script_at]));
      script_at++;
    }
    if (hang_asked) {
      hang_asked = 0;
      hang();
    }
    if (real) {
      unsigned char bytes[256];
      const ssize_t got = read(pty, bytes, sizeof bytes);
      if (got > 0) feed(bytes, got);
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      const long ahead = ms * 1000 - (now.tv_sec - start.tv_sec) * 1000000L - (now.tv_nsec - start.tv_nsec) / 1000;
      if (ahead > 0) usleep(ahead);
      if (getppid() == 1) return 0;
    }
    const avr_cycle_count_t until = (avr_cycle_count_t)(ms + 1) * 16000;
    while (avr->cycle < until) {
      const int reset = avr->run != run;
      const int state = avr_run(avr);
      if (reset) was_reset();
      // The deepest that the stack went, over every instruction.
      const unsigned stack = avr->data[R_SPL] | avr->data[R_SPL + 1] << 8;
      if (stack < lowest && stack > 0x100) {
        lowest = stack;
        lowest_at = avr->pc;
      }
      if (state == cpu_Done || state == cpu_Crashed) return fprintf(stderr, "the node crashed\n"), 1;
    }
  }
  fflush(stdout);
  for (int i = 0; i < resets; i++) printf("reset %ld\n", reset_ms[i]);
  printf("stack %u at 0x%x\n", lowest, lowest_at);
  return 0;
}
