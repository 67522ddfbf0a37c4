/*
 * recfuse from any language: a model file that Python wrote, asked by user, by vector, for similar items.
 *
 * Every function returns a recfuse_status; recfuse_last_error() says in words what the last one of this thread refused.
 * Nothing is printed, nothing aborts, no exception leaves. Wrong arguments, NULL among them, are errors; what a pointer
 * points to has to be as large as this header says.
 *
 * One model may be asked by any number of threads at once. It is closed once, when none asks any more.
 *
 * Users and items go by their rows, from 0: recfuse_user_row() and recfuse_item_id() translate. Lists are int32 rows
 * and float scores, best first; -1 and -INFINITY where a list is shorter than k. They are the bytes that Python
 * returns.
 */
#ifndef RECFUSE_RECFUSE_H
#define RECFUSE_RECFUSE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define RECFUSE_API
#else
#define RECFUSE_API __attribute__((visibility("default")))
#endif

/* Of this header. A library of the same major version has everything in it. */
#define RECFUSE_ABI_VERSION_MAJOR 1
#define RECFUSE_ABI_VERSION_MINOR 0

/* In the place of the length of a text that ends with a zero byte. */
#define RECFUSE_NUL_TERMINATED ((size_t)-1)

typedef int32_t recfuse_status;
enum {
  RECFUSE_OK = 0,
  RECFUSE_INVALID_ARGUMENT = 1, /* an argument breaks the rule that the message names */
  RECFUSE_OUT_OF_RANGE = 2,     /* a row that the model does not have */
  RECFUSE_UNKNOWN_ID = 3,       /* an id that the model does not have */
  RECFUSE_BAD_FORMAT = 4,       /* a file that is damaged, newer, or no model file; also found during a request */
  RECFUSE_IO_ERROR = 5,         /* a file that cannot be opened or read */
  RECFUSE_NO_MEMORY = 6,
  RECFUSE_INTERNAL_ERROR = 7
};

/* Which arrays are compared with their checksums when a file is opened. The header always is. */
typedef int32_t recfuse_verify;
enum {
  RECFUSE_VERIFY_SMALL = 0,  /* those of files of up to 8 MiB */
  RECFUSE_VERIFY_ALL = 1,    /* every one, which reads the whole file */
  RECFUSE_VERIFY_NOTHING = 2 /* damage in an array changes its values unseen */
};

/* What users or items go by. */
typedef int32_t recfuse_id_kind;
enum {
  RECFUSE_ID_ROW = 0,     /* their rows */
  RECFUSE_ID_INTEGER = 1, /* integers of 64 bits */
  RECFUSE_ID_STRING = 2,  /* UTF-8 */
  RECFUSE_ID_LABEL = 3    /* anything else that Python knows, as its JSON */
};

typedef struct recfuse_model recfuse_model;

/*
 * Structs begin with their size, so that later versions can be longer: set it with the _INIT macros. What a library
 * does not know of a longer one must be zero.
 */
typedef struct recfuse_info {
  size_t struct_size;
  int64_t n_users; /* -1 where users have no vectors: recfuse_recommend() is an error, the others are not */
  int64_t n_items;
  int64_t n_modalities;
  recfuse_id_kind user_id_kind;
  recfuse_id_kind item_id_kind;
} recfuse_info;

typedef struct recfuse_modality {
  size_t struct_size;
  const char* name; /* UTF-8, until the model is closed */
  int64_t dim;      /* of the vectors that recfuse_search() takes */
  double weight;    /* where neither a query nor a user has another */
} recfuse_modality;

typedef struct recfuse_query {
  size_t struct_size;
  int64_t k;              /* length of the lists */
  const double* weights;  /* one per modality, for all of the request; NULL: those of the user, or of the model */
  int64_t n_weights;      /* as many as modalities, or 0 with NULL */
  const int32_t* exclude; /* rows of items that are left out, any order; may be NULL with 0 */
  int64_t n_exclude;
  const int32_t* allow; /* NULL: all are admitted; else nothing but these, and with 0 none */
  int64_t n_allow;
  int32_t include_seen; /* not 0: do not leave out what the model knows the user to have */
  int32_t num_threads;  /* 0: every core that this process may use */
} recfuse_query;

#define RECFUSE_INFO_INIT {sizeof(recfuse_info), 0, 0, 0, 0, 0}
#define RECFUSE_MODALITY_INIT {sizeof(recfuse_modality), NULL, 0, 0.0}
#define RECFUSE_QUERY_INIT {sizeof(recfuse_query), 10, NULL, 0, NULL, 0, NULL, 0, 0, 0}

/* "0.1.0"; and major * 1000 + minor of the ABI. */
RECFUSE_API const char* recfuse_version(void);
RECFUSE_API int32_t recfuse_abi_version(void);

/* What the last function that failed in this thread had to say; "" before one has. Until the next one fails here. */
RECFUSE_API const char* recfuse_last_error(void);

/*
 * Opens a model file: maps it, which takes the same time whatever its size. `path` is in the encoding of the system.
 * *model is NULL where this fails. recfuse_model_prepare() looks at all items, as the first request would.
 */
RECFUSE_API recfuse_status recfuse_model_open(const char* path, recfuse_verify verify, recfuse_model** model);
RECFUSE_API recfuse_status recfuse_model_prepare(const recfuse_model* model);
/* Compares every array with its checksum. */
RECFUSE_API recfuse_status recfuse_model_verify(const recfuse_model* model);
/* NULL is fine. */
RECFUSE_API void recfuse_model_close(recfuse_model* model);

RECFUSE_API recfuse_status recfuse_model_info(const recfuse_model* model, recfuse_info* info);
RECFUSE_API recfuse_status recfuse_model_modality(const recfuse_model* model, int64_t index,
                                                  recfuse_modality* modality);

/*
 * Rows by id. RECFUSE_UNKNOWN_ID where there is none, or ids are of another kind; *row is -1 then.
 */
RECFUSE_API recfuse_status recfuse_user_row(const recfuse_model* model, const char* id, size_t length, int64_t* row);
RECFUSE_API recfuse_status recfuse_item_row(const recfuse_model* model, const char* id, size_t length, int64_t* row);
RECFUSE_API recfuse_status recfuse_user_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row);
RECFUSE_API recfuse_status recfuse_item_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row);

/*
 * Ids by row. As text: *length is that of the id, without a zero byte; up to capacity - 1 bytes of it are copied, and a
 * zero byte. `text` may be NULL with a capacity of 0. Integers are in decimals.
 */
RECFUSE_API recfuse_status recfuse_user_id(const recfuse_model* model, int64_t row, char* text, size_t capacity,
                                           size_t* length);
RECFUSE_API recfuse_status recfuse_item_id(const recfuse_model* model, int64_t row, char* text, size_t capacity,
                                           size_t* length);
RECFUSE_API recfuse_status recfuse_user_integer(const recfuse_model* model, int64_t row, int64_t* id);
RECFUSE_API recfuse_status recfuse_item_integer(const recfuse_model* model, int64_t row, int64_t* id);

/*
 * The best items of users of the model. `users` are rows; items and scores have n_users * query->k elements, user by
 * user. `query` may be NULL: RECFUSE_QUERY_INIT.
 */
RECFUSE_API recfuse_status recfuse_recommend(const recfuse_model* model, const int64_t* users, int64_t n_users,
                                             const recfuse_query* query, int32_t* items, float* scores);

/*
 * The best items for vectors. vectors[m] is a matrix (n_queries, dim of modality m) by rows, or NULL where a modality
 * is not asked: its weight is 0. n_modalities is how many there are in `vectors`, all of the model's.
 */
RECFUSE_API recfuse_status recfuse_search(const recfuse_model* model, const float* const* vectors, int64_t n_modalities,
                                          int64_t n_queries, const recfuse_query* query, int32_t* items, float* scores);

/* The items most like `like`, which are rows, by weighted cosines; never the item itself. */
RECFUSE_API recfuse_status recfuse_similar(const recfuse_model* model, const int64_t* like, int64_t n_like,
                                           const recfuse_query* query, int32_t* items, float* scores);

#ifdef __cplusplus
}
#endif

#endif
