/* Decodes utterances through the C API of sherpa-onnx, as an application on a device would.

   sherpa_client TOKENS ENCODER DECODER JOINER SAMPLE_RATE MEL_BINS < SOUNDS
   SOUNDS: of each utterance an int32 number of samples, then float32 samples in [-1, 1].
   Prints the result of each as a line of JSON: text, tokens, timestamps. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sherpa-onnx/c-api/c-api.h"

static void decode(const SherpaOnnxOnlineRecognizer *recognizer, int32_t sample_rate,
                   const float *samples, int32_t num_samples) {
  const SherpaOnnxOnlineStream *stream = SherpaOnnxCreateOnlineStream(recognizer);
  int32_t piece = sample_rate / 10; /* 100 ms at a time, as from a microphone */
  for (int32_t start = 0; start < num_samples; start += piece) {
    int32_t size = num_samples - start < piece ? num_samples - start : piece;
    SherpaOnnxOnlineStreamAcceptWaveform(stream, sample_rate, samples + start, size);
    while (SherpaOnnxIsOnlineStreamReady(recognizer, stream)) {
      SherpaOnnxDecodeOnlineStream(recognizer, stream);
    }
  }
  const char *json = SherpaOnnxGetOnlineStreamResultAsJson(recognizer, stream);
  printf("%s\n", json);
  SherpaOnnxDestroyOnlineStreamResultJson(json);
  SherpaOnnxDestroyOnlineStream(stream);
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  SherpaOnnxOnlineRecognizerConfig config;
  memset(&config, 0, sizeof(config));
  config.model_config.tokens = argv[1];
  config.model_config.transducer.encoder = argv[2];
  config.model_config.transducer.decoder = argv[3];
  config.model_config.transducer.joiner = argv[4];
  config.model_config.num_threads = 1;
  config.feat_config.sample_rate = atoi(argv[5]);
  config.feat_config.feature_dim = atoi(argv[6]);
  config.decoding_method = "greedy_search";
  const SherpaOnnxOnlineRecognizer *recognizer = SherpaOnnxCreateOnlineRecognizer(&config);
  if (recognizer == NULL) return 1;
  int32_t num_samples;
  while (fread(&num_samples, sizeof(num_samples), 1, stdin) == 1) {
    float *samples = malloc(sizeof(float) * (size_t)num_samples);
    if (samples == NULL) return 1;
    if (fread(samples, sizeof(float), (size_t)num_samples, stdin) != (size_t)num_samples) return 1;
    decode(recognizer, config.feat_config.sample_rate, samples, num_samples);
    free(samples);
  }
  SherpaOnnxDestroyOnlineRecognizer(recognizer);
  return 0;
}
