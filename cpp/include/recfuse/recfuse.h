/**
 * @file
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

/** Marks what the library exports. */
#if defined(_WIN32)
#define RECFUSE_API
#else
#define RECFUSE_API __attribute__((visibility("default")))
#endif

/** Of this header. A library of the same major version and no smaller minor one has everything in it. */
#define RECFUSE_ABI_VERSION_MAJOR 1
/** Grows when something is added. */
#define RECFUSE_ABI_VERSION_MINOR 0

/** In the place of the length of a text that ends with a zero byte. */
#define RECFUSE_NUL_TERMINATED ((size_t)-1)

/** What every request returns: one of the RECFUSE_ values that follow; later versions may have more. */
typedef int32_t recfuse_status;
/** The values of a recfuse_status. */
enum {
  RECFUSE_OK = 0,               /**< done */
  RECFUSE_INVALID_ARGUMENT = 1, /**< an argument breaks the rule that the message names */
  RECFUSE_OUT_OF_RANGE = 2,     /**< a row that the model does not have */
  RECFUSE_UNKNOWN_ID = 3,       /**< an id that the model does not have */
  RECFUSE_BAD_FORMAT = 4,       /**< a file that is damaged, newer, or no model file; also found during a request */
  RECFUSE_IO_ERROR = 5,         /**< a file that cannot be opened or read */
  RECFUSE_NO_MEMORY = 6,        /**< memory does not suffice */
  RECFUSE_INTERNAL_ERROR = 7    /**< anything else, which is a defect of recfuse */
};

/** Which arrays are compared with their checksums when a file is opened. The header always is. */
typedef int32_t recfuse_verify;
/** The values of a recfuse_verify. */
enum {
  RECFUSE_VERIFY_SMALL = 0,  /**< those of files of up to 8 MiB */
  RECFUSE_VERIFY_ALL = 1,    /**< every one, which reads the whole file */
  RECFUSE_VERIFY_NOTHING = 2 /**< damage in an array changes its values unseen */
};

/** What users or items go by. */
typedef int32_t recfuse_id_kind;
/** The values of a recfuse_id_kind. */
enum {
  RECFUSE_ID_ROW = 0,     /**< their rows */
  RECFUSE_ID_INTEGER = 1, /**< integers of 64 bits */
  RECFUSE_ID_STRING = 2,  /**< UTF-8 */
  RECFUSE_ID_LABEL = 3    /**< anything else that Python knows, as its JSON */
};

/** An open model file. */
typedef struct recfuse_model recfuse_model;

/**
 * What a model has. Structs begin with their size, so that later versions can be longer: set it with the _INIT macros.
 * What a library does not know of a longer one must be zero.
 */
typedef struct recfuse_info {
  size_t struct_size;           /**< sizeof(recfuse_info) */
  int64_t n_users;              /**< -1 where users have no vectors: recfuse_recommend() is an error, others are not */
  int64_t n_items;              /**< rows of items are 0 to n_items - 1 */
  int64_t n_modalities;         /**< kinds of vectors */
  recfuse_id_kind user_id_kind; /**< what recfuse_user_row() and its like take */
  recfuse_id_kind item_id_kind; /**< what recfuse_item_row() and its like take */
} recfuse_info;

/** One modality of a model. */
typedef struct recfuse_modality {
  size_t struct_size; /**< sizeof(recfuse_modality) */
  const char* name;   /**< UTF-8, until the model is closed */
  int64_t dim;        /**< of the vectors that recfuse_search() takes */
  double weight;      /**< where neither a query nor a user has another */
} recfuse_modality;

/** What a request asks beside its users, items or vectors. The arrays are read during the call only. */
typedef struct recfuse_query {
  size_t struct_size;     /**< sizeof(recfuse_query) */
  int64_t k;              /**< length of the lists */
  const double* weights;  /**< one per modality, for all of the request; NULL: those of the user, or of the model */
  int64_t n_weights;      /**< as many as modalities, or 0 with NULL */
  const int32_t* exclude; /**< rows of items that are left out, any order; may be NULL with 0 */
  int64_t n_exclude;      /**< how many */
  const int32_t* allow;   /**< NULL: all are admitted; else nothing but these, and with 0 none */
  int64_t n_allow;        /**< how many */
  int32_t include_seen;   /**< not 0: do not leave out what the model knows the user to have */
  int32_t num_threads;    /**< 0: every core that this process may use */
} recfuse_query;

/** To be filled by recfuse_model_info(). */
#define RECFUSE_INFO_INIT {sizeof(recfuse_info), 0, 0, 0, 0, 0}
/** To be filled by recfuse_model_modality(). */
#define RECFUSE_MODALITY_INIT {sizeof(recfuse_modality), NULL, 0, 0.0}
/** Lists of 10, weights of the user or the model, nothing left out but what the user has. */
#define RECFUSE_QUERY_INIT {sizeof(recfuse_query), 10, NULL, 0, NULL, 0, NULL, 0, 0, 0}

/** The version of the library: "0.1.0". */
RECFUSE_API const char* recfuse_version(void);
/** The version of its ABI: major * 1000 + minor. */
RECFUSE_API int32_t recfuse_abi_version(void);

/** What the last function that failed in this thread had to say; "" before one has. Until the next one fails here. */
RECFUSE_API const char* recfuse_last_error(void);

/**
 * Opens a model file: maps it, which takes the same time whatever its size.
 * @param path In the encoding of the system, ending with a zero byte.
 * @param verify What is compared with its checksum.
 * @param[out] model To be closed with recfuse_model_close(); NULL where this fails.
 * @return RECFUSE_OK, RECFUSE_IO_ERROR, RECFUSE_BAD_FORMAT (also of a model without a dense search),
 * RECFUSE_INVALID_ARGUMENT, RECFUSE_NO_MEMORY.
 */
RECFUSE_API recfuse_status recfuse_model_open(const char* path, recfuse_verify verify, recfuse_model** model);
/** Looks at all items, as the first request would. */
RECFUSE_API recfuse_status recfuse_model_prepare(const recfuse_model* model);
/** Compares every array with its checksum; RECFUSE_BAD_FORMAT where one differs, and the message names it. */
RECFUSE_API recfuse_status recfuse_model_verify(const recfuse_model* model);
/** Ends the mapping and all that the model gave pointers to. NULL is fine. */
RECFUSE_API void recfuse_model_close(recfuse_model* model);

/** Fills `info`, whose struct_size is set. */
RECFUSE_API recfuse_status recfuse_model_info(const recfuse_model* model, recfuse_info* info);
/** Fills `modality`, whose struct_size is set; RECFUSE_OUT_OF_RANGE where `index` is none of 0 to n_modalities - 1. */
RECFUSE_API recfuse_status recfuse_model_modality(const recfuse_model* model, int64_t index,
                                                  recfuse_modality* modality);

/**
 * The row of a user by its id as text, for RECFUSE_ID_STRING and RECFUSE_ID_LABEL.
 * @param model The model.
 * @param id UTF-8.
 * @param length Its bytes, or RECFUSE_NUL_TERMINATED.
 * @param[out] row -1 where this fails.
 * @return RECFUSE_UNKNOWN_ID where there is none, or ids are of another kind.
 */
RECFUSE_API recfuse_status recfuse_user_row(const recfuse_model* model, const char* id, size_t length, int64_t* row);
/** The row of an item by its id as text, as recfuse_user_row(). */
RECFUSE_API recfuse_status recfuse_item_row(const recfuse_model* model, const char* id, size_t length, int64_t* row);
/** The row of a user by its id, for RECFUSE_ID_INTEGER and RECFUSE_ID_ROW, else as recfuse_user_row(). */
RECFUSE_API recfuse_status recfuse_user_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row);
/** The row of an item by its id, as recfuse_user_row_of_integer(). */
RECFUSE_API recfuse_status recfuse_item_row_of_integer(const recfuse_model* model, int64_t id, int64_t* row);

/**
 * The id of a user as text; integers in decimals.
 * @param model The model.
 * @param row From 0; RECFUSE_OUT_OF_RANGE where the model has not got it.
 * @param[out] text Gets up to capacity - 1 bytes of the id, UTF-8, and a zero byte; NULL is fine with a capacity of 0.
 * @param capacity The bytes of `text`.
 * @param[out] length The bytes of the whole id, without a zero byte.
 */
RECFUSE_API recfuse_status recfuse_user_id(const recfuse_model* model, int64_t row, char* text, size_t capacity,
                                           size_t* length);
/** The id of an item as text, as recfuse_user_id(). */
RECFUSE_API recfuse_status recfuse_item_id(const recfuse_model* model, int64_t row, char* text, size_t capacity,
                                           size_t* length);
/** The id of a user where ids are integers or rows; RECFUSE_INVALID_ARGUMENT elsewhere. */
RECFUSE_API recfuse_status recfuse_user_integer(const recfuse_model* model, int64_t row, int64_t* id);
/** The id of an item where ids are integers or rows; RECFUSE_INVALID_ARGUMENT elsewhere. */
RECFUSE_API recfuse_status recfuse_item_integer(const recfuse_model* model, int64_t row, int64_t* id);

/**
 * The best items of users of the model.
 * @param model The model.
 * @param users Their rows.
 * @param n_users How many; 0 is fine.
 * @param query What else is asked; NULL: RECFUSE_QUERY_INIT.
 * @param[out] items n_users * query->k rows of items, user by user, best first; -1 where a list is shorter.
 * @param[out] scores As many; -INFINITY where a list is shorter.
 * @return RECFUSE_OUT_OF_RANGE for a row that the model has not got, RECFUSE_INVALID_ARGUMENT, RECFUSE_BAD_FORMAT,
 * RECFUSE_NO_MEMORY.
 */
RECFUSE_API recfuse_status recfuse_recommend(const recfuse_model* model, const int64_t* users, int64_t n_users,
                                             const recfuse_query* query, int32_t* items, float* scores);

/**
 * The best items for vectors.
 * @param model The model.
 * @param vectors vectors[m] is a matrix (n_queries, dim of modality m) by rows, or NULL where a modality is not asked:
 * its weight is 0.
 * @param n_modalities How many there are in `vectors`: all of the model's.
 * @param n_queries The rows of every matrix.
 * @param query As in recfuse_recommend(); no user has weights or seen items here.
 * @param[out] items n_queries * query->k rows of items.
 * @param[out] scores As many.
 */
RECFUSE_API recfuse_status recfuse_search(const recfuse_model* model, const float* const* vectors, int64_t n_modalities,
                                          int64_t n_queries, const recfuse_query* query, int32_t* items, float* scores);

/**
 * The items most like others, by weighted cosines; never the item itself.
 * @param model The model.
 * @param like Rows of items.
 * @param n_like How many.
 * @param query As in recfuse_recommend(); weights of modalities that the model does not compare must be 0.
 * @param[out] items n_like * query->k rows of items.
 * @param[out] scores As many.
 */
RECFUSE_API recfuse_status recfuse_similar(const recfuse_model* model, const int64_t* like, int64_t n_like,
                                           const recfuse_query* query, int32_t* items, float* scores);

#ifdef __cplusplus
}
#endif

#endif
