/**
 * How a passage and its question are asked about in each language, as allenai/open-instruct words it (`eval/tydiqa/run_eval.py`,
 * Apache-2.0): the wording most published figures of open models use.
 */
export interface QuestionWording {
  readonly instruction: string;
  readonly passage: string;
  readonly question: string;
  readonly answer: string;
}

export const tydiqaWordings: Readonly<Record<string, QuestionWording>> = {
  arabic: {
    instruction: "أجب على السؤال التالي بناءً على المعلومات في المقطع المعطى.",
    passage: "المقطع:",
    question: "السؤال:",
    answer: "الإجابة:",
  },
  bengali: {
    instruction: "প্রদত্ত অধ্যায়ের তথ্যের উপর ভিত্তি করে নিম্নলিখিত প্রশ্নের উত্তর দিন।",
    passage: "অধ্যায়:",
    question: "প্রশ্ন:",
    answer: "উত্তর:",
  },
  english: {
    instruction: "Answer the following question based on the information in the given passage.",
    passage: "Passage:",
    question: "Question:",
    answer: "Answer:",
  },
  finnish: {
    instruction: "Vastaa seuraavaan kysymykseen annetun kappaleen tiedon perusteella.",
    passage: "Kappale:",
    question: "Kysymys:",
    answer: "Vastaus:",
  },
  indonesian: {
    instruction: "Jawab pertanyaan berikut berdasarkan informasi di bagian yang diberikan.",
    passage: "Bagian:",
    question: "Pertanyaan:",
    answer: "Jawaban:",
  },
  korean: {
    instruction: "주어진 문단의 정보에 기반하여 다음 질문에 답하십시오.",
    passage: "문단:",
    question: "질문:",
    answer: "답변:",
  },
  russian: {
    instruction: "Ответьте на следующий вопрос на основе информации в данном отрывке.",
    passage: "Отрывок:",
    question: "Вопрос:",
    answer: "Ответ:",
  },
  swahili: {
    instruction: "Jibu swali lifuatalo kulingana na habari kwenye kifungu kilichotolewa.",
    passage: "Kifungu:",
    question: "Swali:",
    answer: "Jibu:",
  },
  telugu: {
    instruction: "ఇచ్చిన పేరాలోని సమాచారం ఆధారంగా కింది ప్రశ్నకు సమాధానం ఇవ్వండి.",
    passage: "పేరా:",
    question: "ప్రశ్న:",
    answer: "సమాధానం:",
  },
};
