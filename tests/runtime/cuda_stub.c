/* A stand-in for libcuda.so.1 in host memory, for running cuda-bindings without a GPU: see test_cuda_bindings.py.
   One device; streams run at once; captured work is kept and replayed. It knows the kernels axpy and axpy_cell. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int R;
typedef uint64_t P;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 101, BAD_IMAGE = 200, NOT_FOUND = 500, UNSUPPORTED = 900,
       INVALIDATED = 901, UPDATE_FAILED = 910 };

typedef struct { P at; size_t n; } Piece;
static Piece pieces[65536];
static size_t n_pieces, used, total = 1ull << 30;
static int version = 13000;

typedef struct { int kind; P a, b, c; size_t n; float x; unsigned threads; void *event; } Op;
typedef struct { Op *ops; size_t n; } List;
typedef struct { List *capture; int spoilt; } Stream;
typedef struct { double time; unsigned flags; } Event;
typedef struct { int kind; int dynamic; } Function;
static Stream legacy;

static Stream *of(void *s) { return s == NULL || s == (void *)1 ? &legacy : s; }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec * 1e-6; }
static int inside(P at, size_t n) {
  for (size_t k = 0; k < n_pieces; k++) if (pieces[k].at <= at && at + n <= pieces[k].at + pieces[k].n) return 1;
  return 0;
}
static void run(Op *o) {
  if (o->kind == 0) memmove((void *)o->a, (void *)o->b, o->n);
  if (o->kind == 1) memset((void *)o->a, (int)o->b, o->n);
  if (o->kind == 2) ((Event *)o->event)->time = now();
  if (o->kind == 3 || o->kind == 4) {
    float a = o->kind == 3 ? o->x : *(float *)o->c, *y = (float *)o->a, *x = (float *)o->b;
    for (size_t k = 0; k < o->n && k < o->threads; k++) y[k] += a * x[k];
  }
}
static R sends(void *s, Op o) {
  Stream *st = of(s);
  if (!st->capture) { run(&o); return OK; }
  st->capture->ops = realloc(st->capture->ops, (st->capture->n + 1) * sizeof(Op));
  st->capture->ops[st->capture->n++] = o;
  return OK;
}

/* devices */
R cuInit(unsigned f) {
  if (getenv("STUB_VERSION")) version = atoi(getenv("STUB_VERSION"));
  return getenv("STUB_INIT") ? atoi(getenv("STUB_INIT")) : OK;
}
R cuDriverGetVersion(int *v) { *v = version; return OK; }
R cuDeviceGetCount(int *n) { *n = getenv("STUB_COUNT") ? atoi(getenv("STUB_COUNT")) : 1; return OK; }
R cuDeviceGet(int *d, int k) { *d = k; return k == 0 ? OK : NO_DEVICE; }
R cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Stub GPU", n); return OK; }
R cuDeviceTotalMem(size_t *n, int d) { *n = total; return OK; }
R cuDeviceGetUuid(char *u, int d) { for (int k = 0; k < 16; k++) u[k] = (char)(k * 17); return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? 9 : a == 76 ? 0 : a == 97 ? 232448 : a == 8 ? 49152 : a == 16 ? 132 : a == 10 ? 32 : a == 1 ? 1024 : 1;
  return OK;
}
R cuDeviceCanAccessPeer(int *v, int a, int b) { *v = 0; return OK; }
R cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)0x1000; return OK; }
R cuCtxSetCurrent(void *c) { return OK; }
R cuCtxGetCurrent(void **c) { *c = (void *)0x1000; return OK; }
R cuCtxSynchronize(void) { return OK; }
R cuCtxGetStreamPriorityRange(int *a, int *b) { *a = 0; *b = -5; return OK; }
R cuGetErrorName(R r, const char **s) {
  *s = r == INVALID ? "CUDA_ERROR_INVALID_VALUE" : r == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : r == BAD_IMAGE ?
    "CUDA_ERROR_INVALID_IMAGE" : r == UNSUPPORTED ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" : "CUDA_ERROR_OTHER";
  return OK;
}
R cuGetErrorString(R r, const char **s) { *s = "a stub's error"; return OK; }
R cuPointerGetAttribute(void *o, int a, P p) { if (!inside(p, 1)) return INVALID; *(int *)o = 0; return OK; }

/* memory */
R cuMemAlloc(P *p, size_t n) {
  if (used + n > total || n_pieces == 65536) return NO_MEMORY;
  void *m = aligned_alloc(512, (n + 511) / 512 * 512);
  if (!m) return NO_MEMORY;
  memset(m, 0xCD, n);
  pieces[n_pieces++] = (Piece){(P)m, n};
  used += n;
  *p = (P)m;
  return OK;
}
R cuMemFree(P p) {
  for (size_t k = 0; k < n_pieces; k++) if (pieces[k].at == p) {
    used -= pieces[k].n;
    pieces[k] = pieces[--n_pieces];
    free((void *)p);
    return OK;
  }
  return INVALID;
}
R cuMemHostAlloc(void **p, size_t n, unsigned f) { *p = aligned_alloc(512, (n + 511) / 512 * 512); return *p ? OK : NO_MEMORY; }
R cuMemFreeHost(void *p) { free(p); return OK; }
R cuMemGetInfo(size_t *f, size_t *t) { *f = total - used; *t = total; return OK; }
R cuMemcpyHtoDAsync(P d, const void *h, size_t n, void *s) {
  return inside(d, n) ? sends(s, (Op){.kind = 0, .a = d, .b = (P)h, .n = n}) : INVALID;
}
R cuMemcpyDtoHAsync(void *h, P d, size_t n, void *s) {
  return inside(d, n) ? sends(s, (Op){.kind = 0, .a = (P)h, .b = d, .n = n}) : INVALID;
}
R cuMemcpyDtoDAsync(P d, P e, size_t n, void *s) {
  return inside(d, n) && inside(e, n) ? sends(s, (Op){.kind = 0, .a = d, .b = e, .n = n}) : INVALID;
}
R cuMemsetD8Async(P d, unsigned char b, size_t n, void *s) {
  return inside(d, n) ? sends(s, (Op){.kind = 1, .a = d, .b = b, .n = n}) : INVALID;
}

/* streams, events */
R cuStreamCreateWithPriority(void **s, unsigned f, int p) { *s = calloc(1, sizeof(Stream)); return f == 1 ? OK : INVALID; }
R cuStreamQuery(void *s) { return OK; }
R cuStreamSynchronize(void *s) { if (of(s)->capture) { of(s)->spoilt = 1; return UNSUPPORTED; } return OK; }
R cuStreamWaitEvent(void *s, void *e, unsigned f) { return e ? sends(s, (Op){.kind = 9}) : INVALID; }
R cuStreamIsCapturing(void *s, int *v) { *v = of(s)->capture != NULL; return OK; }
R cuEventCreate(void **e, unsigned f) { Event *n = calloc(1, sizeof(Event)); n->flags = f; *e = n; return OK; }
R cuEventRecord(void *e, void *s) { return sends(s, (Op){.kind = 2, .event = e}); }
R cuEventQuery(void *e) { return OK; }
R cuEventSynchronize(void *e) { return OK; }
R cuEventElapsedTime(float *ms, void *a, void *b) {
  if ((((Event *)a)->flags | ((Event *)b)->flags) & 2) return 400;
  *ms = (float)(((Event *)b)->time - ((Event *)a)->time) + 1e-6f;
  return OK;
}
R cuEventDestroy(void *e) { free(e); return OK; }

/* launch */
R cuModuleLoadData(void **m, const void *i) { *m = (void *)0x2000; return memcmp(i, "FAKE", 4) ? BAD_IMAGE : OK; }
R cuModuleUnload(void *m) { return OK; }
R cuModuleGetFunction(void **f, void *m, const char *name) {
  int kind = !strcmp(name, "axpy") ? 3 : !strcmp(name, "axpy_cell") ? 4 : 0;
  if (!kind) return NOT_FOUND;
  Function *fn = calloc(1, sizeof(Function));
  fn->kind = kind;
  fn->dynamic = 49152;
  *f = fn;
  return OK;
}
R cuFuncGetAttribute(int *v, int a, void *f) { *v = a == 0 ? 1024 : a == 4 ? 40 : a == 8 ? ((Function *)f)->dynamic : 0; return OK; }
R cuFuncSetAttribute(void *f, int a, int v) { if (a == 8) ((Function *)f)->dynamic = v; return OK; }
R cuFuncGetParamInfo(void *f, size_t k, size_t *offset, size_t *size) {
  if (k > 5) return INVALID;
  *offset = 8 * k;
  *size = k == 3 || (k == 2 && ((Function *)f)->kind == 3) ? 4 : 8;
  return OK;
}
static R launch(Function *f, const unsigned *g, const unsigned *b, unsigned shared, void *s, void **p) {
  if ((int)shared > f->dynamic || b[0] > 1024 || !g[0] || !g[1] || !g[2] || b[1] != 1 || b[2] != 1) return INVALID;
  Op o = {.kind = f->kind, .a = *(P *)p[0], .b = *(P *)p[1], .n = (size_t)*(int *)p[3], .threads = g[0] * b[0]};
  if (f->kind == 3) o.x = *(float *)p[2]; else o.c = *(P *)p[2];
  if (*(P *)p[4] || *(P *)p[5]) return INVALID; /* the two scratch pointers */
  return sends(s, o);
}
R cuLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned shared, void *s,
                 void **p, void **x) {
  return x ? INVALID : launch(f, (unsigned[]){a, b, c}, (unsigned[]){d, e, g}, shared, s, p);
}
struct attribute { int id, pad; unsigned value[16]; };
struct config { unsigned g[3], b[3], shared; void *stream; struct attribute *attrs; unsigned n; };
R cuLaunchKernelEx(const struct config *c, void *f, void **p, void **x) {
  unsigned seen = 0;
  for (unsigned k = 0; k < c->n; k++) {
    unsigned id = c->attrs[k].id, *v = c->attrs[k].value;
    seen |= 1u << id;
    if (id == 4 ? v[0] != 2 || v[1] != 1 || v[2] != 1 : v[0] != 1) return INVALID;
  }
  if (seen != 1u << 2 && seen != 1u << 6 && seen != (1u << 4 | 1u << 5)) return INVALID; /* one option at a time */
  return x ? INVALID : launch(f, c->g, c->b, c->shared, c->stream, p);
}

/* graphs */
R cuStreamBeginCapture(void *s, int mode) {
  if (of(s) == &legacy || mode != 2) return UNSUPPORTED;
  of(s)->capture = calloc(1, sizeof(List));
  of(s)->spoilt = 0;
  return OK;
}
R cuStreamEndCapture(void *s, void **g) {
  Stream *st = of(s);
  *g = st->spoilt ? NULL : st->capture;
  st->capture = NULL;
  return st->spoilt ? INVALIDATED : OK;
}
R cuGraphInstantiate(void **x, void *g, unsigned long long f) {
  List *old = g, *n = calloc(1, sizeof(List));
  n->n = old->n;
  n->ops = malloc(old->n * sizeof(Op) + 1);
  memcpy(n->ops, old->ops, old->n * sizeof(Op));
  *x = n;
  return OK;
}
R cuGraphExecUpdate(void *x, void *g, void *info) {
  List *a = x, *b = g;
  if (a->n != b->n) return UPDATE_FAILED;
  for (size_t k = 0; k < a->n; k++) if (a->ops[k].kind != b->ops[k].kind) return UPDATE_FAILED;
  memcpy(a->ops, b->ops, a->n * sizeof(Op));
  return OK;
}
R cuGraphLaunch(void *x, void *s) {
  List *l = x;
  for (size_t k = 0; k < l->n; k++) sends(s, l->ops[k]);
  return OK;
}
R cuGraphExecDestroy(void *x) { free(((List *)x)->ops); free(x); return OK; }
R cuGraphDestroy(void *x) { free(((List *)x)->ops); free(x); return OK; }

/* names come with the version of their interface or without, as the bindings' version likes */
R cuGetProcAddress_v2(const char *name, void **p, int v, uint64_t flags, int *status) {
  void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  char plain[256];
  strncpy(plain, name, 255);
  plain[255] = 0;
  size_t n = strlen(plain);
  if (n > 3 && plain[n - 3] == '_' && plain[n - 2] == 'v') plain[n - 3] = 0;
  if (n > 9 && !strcmp(plain + n - 9, "WithFlags")) plain[n - 9] = 0;
  *p = self ? dlsym(self, name) : NULL;
  if (!*p && self) *p = dlsym(self, plain);
  if (status) *status = *p ? 0 : 1;
  return *p ? OK : NOT_FOUND;
}
R cuGetProcAddress(const char *name, void **p, int v, uint64_t flags) { return cuGetProcAddress_v2(name, p, v, flags, NULL); }
