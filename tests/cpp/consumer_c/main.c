/* consumer_c MODEL: opens a model file and lists items for its first user. */
#include <recfuse/recfuse.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
  recfuse_model* model = NULL;
  recfuse_query query = RECFUSE_QUERY_INIT;
  const int64_t user = 0;
  int32_t items[3];
  float scores[3];
  query.k = 3;
  if (argc != 2) return 2;
  if (recfuse_abi_version() / 1000 != RECFUSE_ABI_VERSION_MAJOR) return 3;
  if (recfuse_model_open("/nowhere", RECFUSE_VERIFY_SMALL, &model) != RECFUSE_IO_ERROR ||
      strlen(recfuse_last_error()) == 0)
    return 4;
  if (recfuse_model_open(argv[1], RECFUSE_VERIFY_SMALL, &model) != RECFUSE_OK ||
      recfuse_recommend(model, &user, 1, &query, items, scores) != RECFUSE_OK) {
    fprintf(stderr, "%s\n", recfuse_last_error());
    return 1;
  }
  printf("recfuse %s: items %d, %d, %d\n", recfuse_version(), (int)items[0], (int)items[1], (int)items[2]);
  recfuse_model_close(model);
  return items[0] >= 0 && scores[0] >= scores[1] ? 0 : 1;
}
