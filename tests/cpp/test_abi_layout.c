/* Prints sizes and offsets of what recfuse.h declares, one a line: tests/cpp/abi.txt has what they are for ever. */
#include <stddef.h>
#include <stdio.h>

#include "recfuse/recfuse.h"

#define SIZE(type) printf("sizeof %s %zu\n", #type, sizeof(type))
#define FIELD(type, field) printf("%s.%s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type*)0)->field))
#define VALUE(name) printf("%s %d\n", #name, (int)name)

int main(void) {
  SIZE(recfuse_status);
  SIZE(recfuse_verify);
  SIZE(recfuse_id_kind);
  SIZE(recfuse_info);
  FIELD(recfuse_info, struct_size);
  FIELD(recfuse_info, n_users);
  FIELD(recfuse_info, n_items);
  FIELD(recfuse_info, n_modalities);
  FIELD(recfuse_info, user_id_kind);
  FIELD(recfuse_info, item_id_kind);
  SIZE(recfuse_modality);
  FIELD(recfuse_modality, struct_size);
  FIELD(recfuse_modality, name);
  FIELD(recfuse_modality, dim);
  FIELD(recfuse_modality, weight);
  SIZE(recfuse_query);
  FIELD(recfuse_query, struct_size);
  FIELD(recfuse_query, k);
  FIELD(recfuse_query, weights);
  FIELD(recfuse_query, n_weights);
  FIELD(recfuse_query, exclude);
  FIELD(recfuse_query, n_exclude);
  FIELD(recfuse_query, allow);
  FIELD(recfuse_query, n_allow);
  FIELD(recfuse_query, include_seen);
  FIELD(recfuse_query, num_threads);
  VALUE(RECFUSE_OK);
  VALUE(RECFUSE_INVALID_ARGUMENT);
  VALUE(RECFUSE_OUT_OF_RANGE);
  VALUE(RECFUSE_UNKNOWN_ID);
  VALUE(RECFUSE_BAD_FORMAT);
  VALUE(RECFUSE_IO_ERROR);
  VALUE(RECFUSE_NO_MEMORY);
  VALUE(RECFUSE_INTERNAL_ERROR);
  VALUE(RECFUSE_VERIFY_SMALL);
  VALUE(RECFUSE_VERIFY_ALL);
  VALUE(RECFUSE_VERIFY_NOTHING);
  VALUE(RECFUSE_ID_ROW);
  VALUE(RECFUSE_ID_INTEGER);
  VALUE(RECFUSE_ID_STRING);
  VALUE(RECFUSE_ID_LABEL);
  return 0;
}
