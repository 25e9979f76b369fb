"""How to load a bundle, in the words of each client, for the files of this very bundle.

A test runs those in Python, C++ and JavaScript. Those of Android and iOS name the classes of
sherpa-onnx 2.0 and say that nobody ran them here.
"""

from __future__ import annotations

from streaming.bundle import ORT_SUFFIX, BundleInfo

PYTHON = """### Python

With nothing but numpy, onnxruntime and kaldi-native-fbank:

```python
import streaming

recognizer = streaming.open_bundle("{name}")
stream = recognizer.create_stream()
stream.accept(samples)  # float32 in [-1, 1], {sample_rate} Hz, as often as you like
print(stream.finish())
```

In sherpa-onnx:

```python
import numpy as np
import sherpa_onnx

recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    tokens="{name}/tokens.txt",
    encoder="{name}/{encoder}",
    decoder="{name}/{decoder}",
    joiner="{name}/{joiner}",
    sample_rate={sample_rate},
    feature_dim={num_mel_bins},
    num_threads=1,{model_type_python}
)
stream = recognizer.create_stream()
stream.accept_waveform({sample_rate}, samples)
tail = np.zeros({tail_samples}, np.float32)  # silence brings the last word out
stream.accept_waveform({sample_rate}, tail)
stream.input_finished()
while recognizer.is_ready(stream):
    recognizer.decode_stream(stream)
print(recognizer.get_result(stream))
```

    sherpa-onnx --tokens={name}/tokens.txt --encoder={name}/{encoder} \\
        --decoder={name}/{decoder} --joiner={name}/{joiner} speech.wav
"""

CPP = """### C++

The C API is the same in `c-api.h`. Link `-lsherpa-onnx-cxx-api`; for the library in the Python
wheel of Linux compile with `-D_GLIBCXX_USE_CXX11_ABI=0`:

```cpp
#include <iostream>
#include <vector>

#include "sherpa-onnx/c-api/cxx-api.h"

int main(int argc, char **argv) {{
  using namespace sherpa_onnx::cxx;
  OnlineRecognizerConfig config;
  config.model_config.transducer.encoder = "{name}/{encoder}";
  config.model_config.transducer.decoder = "{name}/{decoder}";
  config.model_config.transducer.joiner = "{name}/{joiner}";
  config.model_config.tokens = "{name}/tokens.txt";{model_type_cpp}
  config.feat_config.sample_rate = {sample_rate};
  config.feat_config.feature_dim = {num_mel_bins};
  OnlineRecognizer recognizer = OnlineRecognizer::Create(config);
  OnlineStream stream = recognizer.CreateStream();
  Wave wave = ReadWave(argv[1]);  // 16 bit, mono
  stream.AcceptWaveform(wave.sample_rate, wave.samples.data(), wave.samples.size());
  std::vector<float> tail({tail_samples});  // silence brings the last word out
  stream.AcceptWaveform({sample_rate}, tail.data(), tail.size());
  stream.InputFinished();
  while (recognizer.IsReady(&stream)) recognizer.Decode(&stream);
  std::cout << recognizer.GetResult(&stream).text << std::endl;
}}
```
"""

ANDROID = """### Android (not run here)

Kotlin, with the AAR of sherpa-onnx, package `com.k2fsa.sherpa.onnx`. {android_files}

```kotlin
val config = OnlineRecognizerConfig(
    featConfig = FeatureConfig(sampleRate = {sample_rate}, featureDim = {num_mel_bins}),
    modelConfig = OnlineModelConfig(
        transducer = OnlineTransducerModelConfig(
            encoder = "{name}/{encoder}",
            decoder = "{name}/{decoder}",
            joiner = "{name}/{joiner}",
        ),
        tokens = "{name}/tokens.txt",
        numThreads = 1,{model_type_kotlin}
    ),
)
val recognizer = OnlineRecognizer({android_assets}config = config)
val stream = recognizer.createStream()
stream.acceptWaveform(samples, sampleRate = {sample_rate})
while (recognizer.isReady(stream)) recognizer.decode(stream)
println(recognizer.getResult(stream).text)
```
"""

IOS = """### iOS (not run here)

Swift, with `SherpaOnnx.swift` of sherpa-onnx and the files in the application's bundle:

```swift
func path(_ name: String, _ ending: String) -> String {{
  return Bundle.main.path(forResource: name, ofType: ending)!
}}
let transducer = sherpaOnnxOnlineTransducerModelConfig(
  encoder: path("{encoder_stem}", "{ending}"),
  decoder: path("{decoder_stem}", "{ending}"),
  joiner: path("{joiner_stem}", "{ending}"))
let model = sherpaOnnxOnlineModelConfig(
  tokens: path("tokens", "txt"), transducer: transducer, numThreads: 1{model_type_swift})
let features = sherpaOnnxFeatureConfig(sampleRate: {sample_rate}, featureDim: {num_mel_bins})
var config = sherpaOnnxOnlineRecognizerConfig(featConfig: features, modelConfig: model)
let recognizer = SherpaOnnxRecognizer(config: &config)
recognizer.acceptWaveform(samples: samples, sampleRate: {sample_rate})
while recognizer.isReady() {{ recognizer.decode() }}
print(recognizer.getResult().text)
```
"""

BROWSER = """### WebAssembly, Node.js and browser

The package `sherpa-onnx` of npm is WebAssembly (run with 1.13.8, in Node.js 20):

```js
const fs = require("fs");
const sherpa = require("sherpa-onnx");

const recognizer = sherpa.createOnlineRecognizer({{
  featConfig: {{sampleRate: {sample_rate}, featureDim: {num_mel_bins}}},
  modelConfig: {{
    transducer: {{
      encoder: "{name}/{encoder}",
      decoder: "{name}/{decoder}",
      joiner: "{name}/{joiner}",
    }},
    tokens: "{name}/tokens.txt",
    numThreads: 1,
    provider: "cpu",
    debug: 0,
  }},
  decodingMethod: "greedy_search",
}});
const stream = recognizer.createStream();
const wave = sherpa.readWave(process.argv[2]);  // 16 bit, mono
stream.acceptWaveform(wave.sampleRate, wave.samples);
stream.acceptWaveform({sample_rate}, new Float32Array({tail_samples}));  // brings the last word out
while (recognizer.isReady(stream)) recognizer.decode(stream);
console.log(recognizer.getResult(stream).text);
```

For a page (not run here) the files go into the build: copy them into `wasm/asr/assets` of
sherpa-onnx as `encoder.onnx`, `decoder.onnx`, `joiner.onnx` and `tokens.txt`, run
`./build-wasm-simd-asr.sh`, and begin with `const recognizer = createOnlineRecognizer(Module);` of
`sherpa-onnx-asr.js`, which looks for these four names; what follows it stays the same.
"""
NO_BROWSER = """### WebAssembly, Node.js and browser

WebAssembly ends on graphs with external data: take the bundle that this one was made of.
"""

FAMILIES = {
    "sherpa_lstm": (
        "sherpa-onnx loads it as a transducer of its family lstm, releases 1.10.46 to 2.0.1."
    ),
    "sherpa_nemo": (
        "sherpa-onnx loads it as a NeMo transducer, which it knows by the decoder's outputs: give "
        "no model type. Releases from 1.13.5 on; 1.13.0 to 1.13.4 repeat words where chunks meet, "
        "older ones decode one symbol a frame."
    ),
}
# Where a model type spares sherpa-onnx loading the encoder twice, in the syntax of each client.
MODEL_TYPES = {
    "python": '\n    model_type="lstm",',
    "cpp": '\n  config.model_config.model_type = "lstm";',
    "kotlin": '\n        modelType = "lstm",',
    "swift": ', modelType: "lstm"',
}


def describe_use(info: BundleInfo) -> str:
    """The section "Use it" of the card."""
    files = info.files[info.default_precision]
    settings = {
        **files,
        "name": info.name,
        "sample_rate": info.features.sample_rate,
        "num_mel_bins": info.features.num_mel_bins,
        "tail_samples": info.features.num_samples(info.tail_frames + info.chunk_frames),
        "ending": files["encoder"].rpartition(".")[2],
    }
    for graph, name in files.items():
        settings[f"{graph}_stem"] = name.rpartition(".")[0]
    for client, text in MODEL_TYPES.items():
        settings[f"model_type_{client}"] = text if info.target == "sherpa_lstm" else ""
    external = name_form(info) == "external data"
    settings["android_assets"] = "" if external else "assetManager = application.assets, "
    settings["android_files"] = (
        "Graphs with external data cannot be read out of an APK: copy the folder to storage first."
        if external
        else "The folder lies in `assets`."
    )
    browser = NO_BROWSER if external else BROWSER
    pieces = (PYTHON, CPP, ANDROID, IOS, browser)
    head = f"## Use it\n\n{FAMILIES[info.target]}\n"
    return "\n".join([head, *(piece.format(**settings) for piece in pieces)])


def name_form(info: BundleInfo) -> str:
    """What the graphs of the default precision are: ONNX, external data or .ort."""
    if info.files[info.default_precision]["encoder"].endswith(ORT_SUFFIX):
        return ".ort files"
    several = len(info.list_files(info.default_precision)) > 3
    return "external data" if several and info.folder else "ONNX"
